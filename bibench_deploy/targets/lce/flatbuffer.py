"""Read a .tflite file: its operators, tensors and where its bytes go.

Source of the field numbers: TensorFlow Lite's schema, version 3. Only fields that bibench
uses are read, so that neither TensorFlow nor LCE is needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flatbuffers import flexbuffers, number_types
from flatbuffers.table import Table

from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets.lce.operator_names import OPERATOR_NAMES

_CUSTOM = 32
# Types of options that begin with a padding: Conv2D, DepthwiseConv2D, Pool2D, TransposeConv.
_PADDED = frozenset([1, 2, 5, 49])
_PADDINGS = {0: "SAME", 1: "VALID"}
_DTYPES = {0: "float32", 1: "float16", 2: "int32", 4: "int64", 6: "bool", 9: "int8"}


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor: name, shape, dtype, its constant bytes (empty where computed), their buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes
    buffer: int


@dataclass(frozen=True)
class TfliteOperator:
    """An operator: its name (custom ones by their own), indices of its tensors, and the options.

    Only a custom operator has `options`, in a form of its own. `padding` is SAME or VALID, with
    the number for a binary convolution; empty without.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: bytes
    padding: str = ""


@dataclass(frozen=True)
class TfliteModel:
    """The first sub-graph of a .tflite file, operators in the order in which they run."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def constant(self, tensor: int) -> TfliteTensor | None:
        """A tensor that is constant or a constant's DEQUANTIZE, as stored; else None."""
        if tensor < 0:
            return None
        if self.tensors[tensor].data:
            return self.tensors[tensor]
        node = self.producer(tensor)
        if node is None or node.name != "DEQUANTIZE":
            return None
        stored = self.tensors[node.inputs[0]]
        return stored if stored.data else None

    def producer(self, tensor: int) -> TfliteOperator | None:
        """The operator that computes a tensor, or None for inputs and constants."""
        return next((node for node in self.operators if tensor in node.outputs), None)


def read_tflite(path: Path) -> TfliteModel:
    """Read a .tflite file.

    Raises:
        ArtifactError: the file is missing or is not a TensorFlow Lite model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    if content[4:8] != b"TFL3":
        raise ArtifactError(f"{path}: not a TensorFlow Lite model (no TFL3 mark)")
    try:
        return _read(content)
    # What flatbuffers, struct and numpy raise for an offset or a length that points elsewhere.
    except (struct.error, LookupError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{path}: a damaged TensorFlow Lite model ({error})") from error


def with_outputs(content: bytes, tensors: list[int]) -> bytes:
    """A copy of a .tflite file that gives other tensors as its outputs, in this order.

    The new list goes behind the file's end and the sub-graph is pointed to it: no other
    byte moves.
    """
    model = _root(content)
    graph = _tables(model, 2)[0]
    field = graph.Pos + graph.Offset(_slot(2))
    start = (len(content) + 3) // 4 * 4
    padding = b"\0" * (start - len(content))
    listed = struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors)
    pointed = content[:field] + struct.pack("<I", start - field) + content[field + 4 :]
    return pointed + padding + listed


def _read(content: bytes) -> TfliteModel:
    model = _root(content)
    names = [_operator_name(code) for code in _tables(model, 1)]
    graph = _tables(model, 2)[0]
    buffers = _tables(model, 4)
    tensors = []
    for entry in _tables(graph, 0):
        buffer = _number(entry, 2, number_types.Uint32Flags, 0)
        tensors.append(
            TfliteTensor(
                _text(entry, 3),
                tuple(int(size) for size in _vector(entry, 0, np.dtype("<i4"))),
                _DTYPES.get(_number(entry, 1, number_types.Int8Flags, 0), "other"),
                _vector(buffers[buffer], 0, np.dtype("u1")).tobytes(),
                buffer,
            )
        )
    operators = tuple(
        TfliteOperator(
            names[_number(entry, 0, number_types.Uint32Flags, 0)],
            _indices(entry, 1),
            _indices(entry, 2),
            _vector(entry, 5, np.dtype("u1")).tobytes(),
            _padding(entry),
        )
        for entry in _tables(graph, 3)
    )
    model = TfliteModel(tuple(tensors), operators, _indices(graph, 1), _indices(graph, 2))
    _check_indices(model)
    return model


def _check_indices(model: TfliteModel) -> None:
    """Refuse an index of a tensor that is not there; an operator's input may be left out by −1."""
    last = len(model.tensors) - 1
    optional = (index for node in model.operators for index in node.inputs)
    given = (index for node in model.operators for index in node.outputs)
    for lowest, indices in ((-1, optional), (0, (*given, *model.inputs, *model.outputs))):
        for index in indices:
            if not lowest <= index <= last:
                raise ValueError(f"it names tensor {index}, and the last one is {last}")


def _padding(entry: Table) -> str:
    kind = _number(entry, 3, number_types.Uint8Flags, 0)
    offset = entry.Offset(_slot(4))
    if kind in _PADDED and offset:
        options = Table(entry.Bytes, entry.Indirect(entry.Pos + offset))
        return _PADDINGS.get(_number(options, 0, number_types.Int8Flags, 0), "")
    custom = _vector(entry, 5, np.dtype("u1")).tobytes()
    # LCE keeps the options of its operators in a map of FlexBuffers.
    if kind == 0 and b"pad_values" in custom:
        values = flexbuffers.Loads(bytearray(custom))
        return f"{_PADDINGS.get(values['padding'], '')} of {values['pad_values']}"
    return ""


def _operator_name(code: Table) -> str:
    # Files of old writers hold the code in the first field only, new ones in both.
    number = max(
        _number(code, 0, number_types.Int8Flags, 0), _number(code, 3, number_types.Int32Flags, 0)
    )
    if number == _CUSTOM:
        return _text(code, 1)
    # Newer files may hold operators that are newer than the list.
    is_known = 0 <= number < len(OPERATOR_NAMES)
    return OPERATOR_NAMES[number] if is_known else f"BUILTIN_{number}"


def _slot(field: int) -> int:
    return 4 + 2 * field


def _root(content: bytes) -> Table:
    return Table(content, struct.unpack_from("<I", content, 0)[0])


def _tables(table: Table, field: int) -> list[Table]:
    offset = table.Offset(_slot(field))
    if not offset:
        return []
    start = table.Vector(offset)
    return [
        Table(table.Bytes, table.Indirect(start + 4 * index))
        for index in range(table.VectorLen(offset))
    ]


def _vector(table: Table, field: int, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    offset = table.Offset(_slot(field))
    if not offset:
        return np.zeros(0, dtype)
    return np.frombuffer(table.Bytes, dtype, table.VectorLen(offset), table.Vector(offset))


def _indices(table: Table, field: int) -> tuple[int, ...]:
    return tuple(int(index) for index in _vector(table, field, np.dtype("<i4")))


def _number(table: Table, field: int, flags: type, default: int) -> int:
    offset = table.Offset(_slot(field))
    return int(table.Get(flags, table.Pos + offset)) if offset else default


def _text(table: Table, field: int) -> str:
    offset = table.Offset(_slot(field))
    return table.String(table.Pos + offset).decode() if offset else ""
