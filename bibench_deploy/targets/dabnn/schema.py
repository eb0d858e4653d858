"""What a .dab file holds: its operators, their fields, and the model as values.

The format is a flatbuffer without a file identifier, little-endian, its root a table of
layers, constants, inputs and a version. Layers and tensors are linked by name. Field
numbers and the order of operators are those of dabnn's schema, version 2 (common/dab.fbs,
2019-11), in words of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np
import numpy.typing as npt

VERSION = 2


class Operator(IntEnum):
    """What a layer does; the number is what the file holds."""

    FpConv2D = 0
    AvePool = 1
    MaxPool = 2
    Relu = 3
    Softmax = 4
    FC = 5
    Add = 6
    Concat = 7
    BinConv2D = 8
    Affine = 9
    Binarize = 10
    Split = 11
    Shuffle = 12
    PRelu = 13


class Kind(Enum):
    """The type of a field of a layer."""

    NAME = "name"
    NAMES = "names"
    NUMBERS = "numbers"
    NUMBER = "number"


#: Where a layer's parameters are: its field for each operator. Field 0 is the operator's
#: number, field 14 the layer's name.
PARAMETER_FIELDS = {
    Operator.FpConv2D: 1,
    Operator.BinConv2D: 2,
    Operator.AvePool: 3,
    Operator.MaxPool: 4,
    Operator.Relu: 5,
    Operator.Softmax: 6,
    Operator.FC: 7,
    Operator.Add: 8,
    Operator.Concat: 9,
    Operator.Affine: 10,
    Operator.Binarize: 11,
    Operator.Split: 12,
    Operator.Shuffle: 13,
    Operator.PRelu: 15,
}
NAME_FIELD = 14

_Fields = tuple[tuple[str, Kind], ...]
_INPUT, _OUTPUT = ("input", Kind.NAME), ("output", Kind.NAME)
_CONVOLUTION: _Fields = (
    _INPUT,
    ("weight", Kind.NAME),
    ("bias", Kind.NAME),
    ("pads", Kind.NUMBERS),
    ("strides", Kind.NUMBERS),
    ("dilations", Kind.NUMBERS),
    _OUTPUT,
)
_POOL: _Fields = (
    _INPUT,
    ("kernel_shape", Kind.NUMBERS),
    ("pads", Kind.NUMBERS),
    ("strides", Kind.NUMBERS),
    _OUTPUT,
)

#: The fields of each operator's parameters, in the order of their numbers.
FIELDS: dict[Operator, _Fields] = {
    Operator.FpConv2D: _CONVOLUTION,
    Operator.BinConv2D: _CONVOLUTION,
    Operator.AvePool: _POOL,
    Operator.MaxPool: _POOL,
    Operator.Relu: (_INPUT, _OUTPUT),
    Operator.Softmax: (_INPUT, _OUTPUT),
    Operator.FC: (_INPUT, ("weight", Kind.NAME), ("bias", Kind.NAME), _OUTPUT),
    Operator.Add: (("input1", Kind.NAME), ("input2", Kind.NAME), _OUTPUT),
    Operator.Concat: (("inputs", Kind.NAMES), ("axis", Kind.NUMBER), _OUTPUT),
    Operator.Affine: (_INPUT, ("a", Kind.NAME), ("b", Kind.NAME), _OUTPUT),
    Operator.Binarize: (_INPUT, _OUTPUT),
    Operator.Split: (_INPUT, ("outputs", Kind.NAMES)),
    Operator.Shuffle: (_INPUT, _OUTPUT),
    Operator.PRelu: (_INPUT, ("slope", Kind.NAME), _OUTPUT),
}

Value = str | int | tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class DabLayer:
    """One layer.

    Attributes:
        operator: what it does.
        name: the node of the .onnx file that it comes from; may be empty.
        values: its parameters, as `FIELDS` names them. A name that is empty, or a list
            without entries, is not in the file.
    """

    operator: Operator
    name: str
    values: dict[str, Value]

    def text(self, field: str) -> str:
        """A field that names a tensor; empty where it is not in the file."""
        value = self.values.get(field, "")
        assert isinstance(value, str)
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A field that names several tensors."""
        value = self.values.get(field, ())
        assert isinstance(value, tuple)
        return tuple(item for item in value if isinstance(item, str))

    def numbers(self, field: str) -> tuple[int, ...]:
        """A field of several numbers."""
        value = self.values.get(field, ())
        assert isinstance(value, tuple)
        return tuple(item for item in value if isinstance(item, int))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all tensors that it reads, constants included."""
        reading = (name for name, _ in FIELDS[self.operator] if not name.startswith("output"))
        found: list[str] = []
        for field in reading:
            value = self.values.get(field)
            if isinstance(value, str) and value:
                found.append(value)
            elif isinstance(value, tuple):
                found += [item for item in value if isinstance(item, str)]
        return tuple(found)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it gives: one, but for Split."""
        if self.operator is Operator.Split:
            return self.texts("outputs")
        return (self.text("output"),)


@dataclass(frozen=True, eq=False)
class DabTensor:
    """A constant.

    Attributes:
        name: by which layers read it.
        shape: [O, kH, kW, C] of a filter, [C] of a bias, multiplier or slope,
            [1, H, W, C] of a map.
        data: float32 [elements], or the uint64 words of packed signs.
    """

    name: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.float32] | npt.NDArray[np.uint64]

    @property
    def is_binary(self) -> bool:
        """Whether it holds packed signs."""
        return self.data.dtype == np.uint64


@dataclass(frozen=True)
class DabModel:
    """A whole file.

    Attributes:
        input_name: of the only input that the engine feeds.
        input_shape: [1, H, W, C].
        layers: in the order in which they run.
        tensors: the constants, in the order of the file.
    """

    input_name: str
    input_shape: tuple[int, ...]
    layers: tuple[DabLayer, ...]
    tensors: tuple[DabTensor, ...]

    @property
    def output_name(self) -> str:
        """What the last layer gives, which is the model's output."""
        return self.layers[-1].outputs[-1]
