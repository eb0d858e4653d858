"""Read and write .dab files: a flatbuffer, every offset checked before it is followed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flatbuffers import Builder

from bibench_deploy.artifact import writing
from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets.dabnn.schema import (
    FIELDS,
    NAME_FIELD,
    PARAMETER_FIELDS,
    VERSION,
    DabLayer,
    DabModel,
    DabTensor,
    Kind,
    Operator,
    Value,
)

# The engine's longest shape is of four dimensions.
_MOST_DIMENSIONS = 8
# How often each byte of a file may be read on average: names are shared by a few layers at
# most, and offsets that all lead to one place would make a small file endless.
_MOST_READS = 4


def write_dab(model: DabModel, path: Path) -> None:
    """Write a model; the same model gives the same bytes."""
    with writing(path):
        path.write_bytes(to_bytes(model))


def read_dab(path: Path) -> DabModel:
    """Read a .dab file.

    Raises:
        ArtifactError: the file is missing, is damaged, or is of another version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return from_bytes(content)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}; export the model again") from error


def to_bytes(model: DabModel) -> bytes:
    """The content of a file."""
    builder = Builder(1024)
    layers = _vector_of_offsets(builder, [_add_layer(builder, item) for item in model.layers])
    tensors = _vector_of_offsets(builder, [_add_tensor(builder, item) for item in model.tensors])
    name = builder.CreateString(model.input_name)
    shape = builder.CreateNumpyVector(np.array(model.input_shape, np.uint32))
    entry = _add_table(builder, 2, {0: shape, 1: name})
    inputs = _vector_of_offsets(builder, [entry])
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(0, layers, 0)
    builder.PrependUOffsetTRelativeSlot(1, tensors, 0)
    builder.PrependUOffsetTRelativeSlot(2, inputs, 0)
    builder.PrependUint32Slot(3, VERSION, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def _add_layer(builder: Builder, layer: DabLayer) -> int:
    fields: dict[int, int] = {}
    for number, (name, kind) in enumerate(FIELDS[layer.operator]):
        value = layer.values.get(name)
        if value and kind is not Kind.NUMBER:
            fields[number] = _add_value(builder, kind, value)
    count = len(FIELDS[layer.operator])
    numbers = {
        number: layer.values.get(name, 0)
        for number, (name, kind) in enumerate(FIELDS[layer.operator])
        if kind is Kind.NUMBER
    }
    parameters = _add_table(builder, count, fields, numbers)
    title = builder.CreateString(layer.name) if layer.name else 0
    builder.StartObject(max(PARAMETER_FIELDS.values()) + 1)
    builder.PrependInt8Slot(0, layer.operator, 0)
    builder.PrependUOffsetTRelativeSlot(PARAMETER_FIELDS[layer.operator], parameters, 0)
    builder.PrependUOffsetTRelativeSlot(NAME_FIELD, title, 0)
    return int(builder.EndObject())


def _add_value(builder: Builder, kind: Kind, value: Any) -> int:
    if kind is Kind.NAME:
        return int(builder.CreateString(value))
    if kind is Kind.NAMES:
        return _vector_of_offsets(builder, [builder.CreateString(item) for item in value])
    return int(builder.CreateNumpyVector(np.array(value, np.int32)))


def _add_tensor(builder: Builder, tensor: DabTensor) -> int:
    data = builder.CreateNumpyVector(tensor.data)
    shape = builder.CreateNumpyVector(np.array(tensor.shape, np.uint32))
    name = builder.CreateString(tensor.name)
    builder.StartObject(6)
    builder.PrependInt8Slot(0, int(tensor.is_binary), 0)
    builder.PrependUOffsetTRelativeSlot(1 if tensor.is_binary else 2, data, 0)
    builder.PrependUOffsetTRelativeSlot(3, shape, 0)
    builder.PrependUOffsetTRelativeSlot(4, name, 0)
    return int(builder.EndObject())


def _add_table(
    builder: Builder, count: int, offsets: dict[int, int], numbers: dict[int, Any] | None = None
) -> int:
    builder.StartObject(count)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, number in (numbers or {}).items():
        builder.PrependInt32Slot(field, number, 0)
    return int(builder.EndObject())


def _vector_of_offsets(builder: Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def from_bytes(content: bytes) -> DabModel:
    """Read the content of a file.

    Raises:
        ArtifactError: it is no .dab of version 2, or an offset or a length leads out of it.
    """
    try:
        file = _Content(content)
        model = _Table(file, file.number("<I", 0))
        version = model.number(3, "<I")
        if version != VERSION:
            raise ArtifactError(
                f"not a daBNN model of version {VERSION} (it says {version}); version 1 is of "
                "dabnn before 2019-07"
            )
        layers = tuple(_read_layer(table) for table in model.tables(0))
        tensors = tuple(_read_tensor(table) for table in model.tables(1))
        inputs = model.tables(2)
        if not layers or not inputs:
            raise _DamageError("it has no layer" if inputs else "it has no input")
        entry = inputs[0]
        shape = tuple(entry.numbers(0, "<u4"))
        return DabModel(entry.text(1), shape, layers, tensors)
    except _DamageError as error:
        raise ArtifactError(f"not a daBNN model, or a damaged one ({error})") from error


class _DamageError(Exception):
    """What is wrong with the bytes."""


def _read_layer(table: _Table) -> DabLayer:
    number = table.number(0, "<b")
    try:
        operator = Operator(number)
    except ValueError as error:
        raise _DamageError(f"a layer is of the unknown kind {number}") from error
    parameters = table.table(PARAMETER_FIELDS[operator])
    if parameters is None:
        raise _DamageError(f"a layer of kind {operator.name} has no parameters")
    values: dict[str, Value] = {}
    for field, (name, kind) in enumerate(FIELDS[operator]):
        values[name] = _read_value(parameters, field, kind)
    return DabLayer(operator, table.text(NAME_FIELD), values)


def _read_value(table: _Table, field: int, kind: Kind) -> Value:
    if kind is Kind.NAME:
        return table.text(field)
    if kind is Kind.NAMES:
        return table.texts(field)
    if kind is Kind.NUMBER:
        return table.number(field, "<i")
    return tuple(table.numbers(field, "<i4"))


def _read_tensor(table: _Table) -> DabTensor:
    name, shape = table.text(4), tuple(table.numbers(3, "<u4"))
    if len(shape) > _MOST_DIMENSIONS:
        raise _DamageError(f"the shape of {name} has {len(shape)} dimensions")
    number = table.number(0, "<b")
    if number not in (0, 1):
        raise _DamageError(f"{name} is of the unknown type {number}")
    data: npt.NDArray[Any] = table.vector(1, "<u8") if number else table.vector(2, "<f4")
    return DabTensor(name, shape, data)


class _Content:
    """A file's bytes: none beyond its end is read, and not all of them again and again."""

    def __init__(self, content: bytes) -> None:
        self.bytes = content
        self._left = _MOST_READS * len(content)

    def number(self, form: str, position: int) -> int:
        """The number at a position."""
        if not 0 <= position <= len(self.bytes) - struct.calcsize(form):
            raise _DamageError(f"it ends at byte {len(self.bytes)}, and byte {position} is needed")
        return int(struct.unpack_from(form, self.bytes, position)[0])

    def spend(self, count: int) -> None:
        """Count what is read."""
        self._left -= count
        if self._left < 0:
            raise _DamageError("many of its offsets lead to one place")


class _Table:
    """A table of a flatbuffer whose every position is checked against the content's end."""

    def __init__(self, content: _Content, position: int) -> None:
        self._content = content
        self._position = position
        self._fields = position - content.number("<i", position)
        self._size = content.number("<H", self._fields)
        content.spend(self._size)

    def _place(self, field: int) -> int:
        """Where a field's content begins; 0 where the table has none."""
        slot = 4 + 2 * field
        if slot + 2 > self._size:
            return 0
        offset = self._content.number("<H", self._fields + slot)
        return self._position + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return self._content.number(form, place) if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._content, self._target(place)) if place else None

    def tables(self, field: int) -> list[_Table]:
        return [_Table(self._content, place) for place in self._targets(field)]

    def texts(self, field: int) -> tuple[str, ...]:
        return tuple(self._text_at(place) for place in self._targets(field))

    def text(self, field: int) -> str:
        place = self._place(field)
        return self._text_at(self._target(place)) if place else ""

    def numbers(self, field: int, dtype: str) -> list[int]:
        return [int(number) for number in self.vector(field, dtype)]

    def vector(self, field: int, dtype: str) -> npt.NDArray[Any]:
        place = self._place(field)
        if not place:
            return np.zeros(0, dtype)
        start, count = self._extent(self._target(place), np.dtype(dtype).itemsize)
        return np.frombuffer(self._content.bytes, dtype, count, start)

    def _target(self, place: int) -> int:
        return place + self._content.number("<I", place)

    def _targets(self, field: int) -> list[int]:
        place = self._place(field)
        if not place:
            return []
        start, count = self._extent(self._target(place), 4)
        return [self._target(start + 4 * index) for index in range(count)]

    def _text_at(self, place: int) -> str:
        start, count = self._extent(place, 1)
        try:
            return self._content.bytes[start : start + count].decode()
        except UnicodeDecodeError as error:
            raise _DamageError(f"the name at byte {place} is not UTF-8") from error

    def _extent(self, place: int, item: int) -> tuple[int, int]:
        """Where a vector's items begin and how many there are."""
        count = self._content.number("<I", place)
        start = place + 4
        if count * item > len(self._content.bytes) - start:
            raise _DamageError(f"{count} items at byte {start} go beyond its end")
        self._content.spend(count * item)
        return start, count
