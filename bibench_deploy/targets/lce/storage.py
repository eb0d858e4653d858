"""Store the float weights of a .tflite file in fewer bits; binary filters stay as they are.

Two forms, both TensorFlow Lite's own, so that LCE's interpreter runs them as they are:

  - int8 fully connected: q = round(w / s), s = max|w| / 127 for the whole matrix. The
    operator also rounds what it reads to 8 bits, at run time (a "hybrid" operator).
  - float16: the constant in half precision with a DEQUANTIZE in front of its reader, which
    the interpreter runs once, not at each inference.

Found by experiment (LCE 0.16, x86, 2048 × 2048 matrix): int8 takes 0.2 of float32's time
and is off by 0.8 % of the largest output; one scale per row is refused (FULLY_CONNECTED
version 12); int8 behind DEQUANTIZE is off by 0.35 % but as slow as float32.

Runs in the conversion process: the schema's classes come with TensorFlow.
Source: TensorFlow Lite's schema, version 3; "dynamic range" and "float16" quantization in
its documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# A DEQUANTIZE and its tensor take 120 to 200 bytes: a smaller constant would grow.
LEAST_BYTES = 512
_IDENTIFIER = b"TFL3"
# What TensorFlow Lite reads its constants at.
_ALIGNMENT = 16
# Which version of each operator the forms need.
_HYBRID_VERSION = 9
_DEQUANTIZE_FLOAT16_VERSION = 3


def store_smaller(content: bytes, fully_connected: str, float_storage: str) -> bytes:
    """A .tflite file whose float weights take fewer bits.

    Args:
        content: the file, all weights in float32.
        fully_connected: `int8` for the weights of fully connected layers, else `float32`.
        float_storage: `float16` for all other constants of at least `LEAST_BYTES` but those
            of LceBconv2d: rounded multipliers would move every sign behind them, to save
            less than a hundredth of a file. Else `float32`.
    """
    file = _File(content)
    if fully_connected == "int8":
        file.store_fully_connected_int8()
    if float_storage == "float16":
        file.store_float16()
    return file.packed()


class _File:
    """The tables of a .tflite file, as objects that can be changed."""

    def __init__(self, content: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated

        self._schema: Any = schema_py_generated
        self._model = self._schema.ModelT.InitFromObj(self._schema.Model.GetRootAs(content, 0))
        self._graph = self._model.subgraphs[0]

    def store_fully_connected_int8(self) -> None:
        """Give each float fully connected layer an int8 weight with one scale."""
        code = self._schema.BuiltinOperator.FULLY_CONNECTED
        for operator in [node for node in self._graph.operators if self._code_of(node) == code]:
            index = int(operator.inputs[1])
            weight = self._constant(index)
            is_shared = sum(index in list(node.inputs) for node in self._graph.operators) > 1
            if weight is None or weight.nbytes < LEAST_BYTES or is_shared:
                continue
            # All zeros are zeros at any scale.
            scale = np.float32(np.abs(weight).max() / 127) or np.float32(1)
            tensor = self._graph.tensors[index]
            tensor.type = self._schema.TensorType.INT8
            tensor.buffer = self._new_buffer(np.round(weight / scale).astype(np.int8))
            tensor.quantization = self._schema.QuantizationParametersT(
                scale=np.array([scale], np.float32), zeroPoint=np.zeros(1, np.int64)
            )
            # The input's own range, not one around zero: behind a ReLU that is one bit more.
            operator.builtinOptions.asymmetricQuantizeInputs = True
            operator.opcodeIndex = self._operator_code(code, _HYBRID_VERSION)

    def store_float16(self) -> None:
        """Put each large float constant in half precision behind a DEQUANTIZE."""
        code = self._operator_code(
            self._schema.BuiltinOperator.DEQUANTIZE, _DEQUANTIZE_FLOAT16_VERSION
        )
        added = []
        for index in list(self._float_constants()):
            constant, tensor = self._constant(index), self._graph.tensors[index]
            assert constant is not None
            half = self._schema.TensorT(
                shape=tensor.shape,
                type=self._schema.TensorType.FLOAT16,
                buffer=self._new_buffer(constant.astype(np.float16)),
                name=b"",
                hasRank=tensor.hasRank,
            )
            self._graph.tensors.append(half)
            tensor.buffer = 0  # by convention the empty one: the tensor is computed now
            added.append(
                self._schema.OperatorT(
                    opcodeIndex=code,
                    inputs=np.array([len(self._graph.tensors) - 1], np.int32),
                    outputs=np.array([index], np.int32),
                    builtinOptionsType=self._schema.BuiltinOptions.DequantizeOptions,
                    builtinOptions=self._schema.DequantizeOptionsT(),
                )
            )
        self._graph.operators = [*added, *self._graph.operators]

    def packed(self) -> bytes:
        """The file's bytes; equal buffers are stored once, unused ones not at all."""
        import flatbuffers

        self._merge_buffers()
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())

    def _float_constants(self) -> Iterator[int]:
        """Indices of the constants that float16 takes: large, and no operand of LceBconv2d."""
        of_binary = {
            int(index)
            for node in self._graph.operators
            if self._model.operatorCodes[node.opcodeIndex].customCode == b"LceBconv2d"
            for index in node.inputs
        }
        for index in range(len(self._graph.tensors)):
            constant = self._constant(index)
            if constant is None or constant.nbytes < LEAST_BYTES or index in of_binary:
                continue
            if _keeps_precision(constant.reshape(self._graph.tensors[index].shape)):
                yield index

    def _constant(self, index: int) -> npt.NDArray[np.float32] | None:
        """A tensor's float32 constant, or None where it has none."""
        tensor = self._graph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if tensor.type != self._schema.TensorType.FLOAT32 or data is None or not len(data):
            return None
        return np.frombuffer(bytes(data), np.float32)

    def _new_buffer(self, array: npt.NDArray[Any]) -> int:
        data = np.frombuffer(array.tobytes(), np.uint8)
        self._model.buffers.append(self._schema.BufferT(data=data))
        return len(self._model.buffers) - 1

    def _code_of(self, operator: Any) -> int:
        return int(self._model.operatorCodes[operator.opcodeIndex].builtinCode)

    def _operator_code(self, builtin: int, version: int) -> int:
        codes = self._model.operatorCodes
        for index, code in enumerate(codes):
            if code.builtinCode == builtin and code.version == version:
                return index
        codes.append(
            self._schema.OperatorCodeT(
                deprecatedBuiltinCode=builtin, builtinCode=builtin, version=version
            )
        )
        return len(codes) - 1

    def _merge_buffers(self) -> None:
        owners = [*self._graph.tensors, *(self._model.metadata or [])]
        places: dict[bytes, int] = {b"": 0}
        for owner in owners:
            data = self._model.buffers[owner.buffer].data
            content = b"" if data is None else bytes(data)
            owner.buffer = places.setdefault(content, len(places))
        self._model.buffers = [_AlignedBuffer(content) for content in places]


# Half of the last of half precision's eleven digits.
_HALF_PRECISION = 2.0**-11


def _keeps_precision(weight: npt.NDArray[np.float32]) -> bool:
    """Whether half precision costs no channel more than its eleven digits.

    It ends at 65504, where numbers become infinite, and has fewer digits below 2^-14, none
    below 2^-25. What counts is the largest number that is used together with a small one: of
    the same output channel or the same input channel, first or last here; in a row of one
    number per channel, the number itself.
    """
    with np.errstate(over="ignore"):
        error = np.abs(weight.astype(np.float16).astype(np.float32) - weight)
    for axis in {0, weight.ndim - 1}:
        others = tuple(other for other in range(weight.ndim) if other != axis)
        largest = np.abs(weight).max(axis=others)
        if not (error.max(axis=others) <= _HALF_PRECISION * largest).all():
            return False
    return True


class _AlignedBuffer:
    """A table of the schema's type Buffer; the schema's own class does not align its bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's classes call it
        from tensorflow.lite.python import schema_py_generated as schema

        vector = None
        if self._content:
            builder.StartVector(1, len(self._content), _ALIGNMENT)
            builder.head = builder.head - len(self._content)
            builder.Bytes[builder.head : builder.head + len(self._content)] = self._content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))
