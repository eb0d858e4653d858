"""Collect the layers and constants of a .dab model, each layer held to the engine's limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bibench_deploy.targets._target import Refusal
from bibench_deploy.targets.dabnn.layer_limits import Placed, limit_refusals
from bibench_deploy.targets.dabnn.packing import pack_filters
from bibench_deploy.targets.dabnn.schema import DabLayer, DabTensor, Operator, Value

_Array = npt.NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution or pooling.

    Attributes:
        kernel: (kH, kW).
        strides: (vertical, horizontal).
        padding: numbers on each side.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: int = 0

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output; what does not fill a window is left out."""
        height, width = (
            (side + 2 * self.padding - kernel) // stride + 1
            for side, kernel, stride in zip(size, self.kernel, self.strides, strict=True)
        )
        return height, width


class Emitter:
    """What has been made so far. Methods that make a map give its name.

    Attributes:
        node: the source graph's node whose layers are being made.
        layers: all layers, in order.
        tensors: all constants.
        shapes: map → (H, W, C).
        refusals: layers that the engine cannot run; they are made all the same.
        layers_of: source graph's node → its layers.
    """

    def __init__(self) -> None:
        self.node = ""
        self.layers: list[DabLayer] = []
        self.tensors: list[DabTensor] = []
        self.shapes: dict[str, Shape] = {}
        self.refusals: list[Refusal] = []
        self.layers_of: dict[str, list[DabLayer]] = {}
        self._constants: dict[tuple[tuple[int, ...], bytes], str] = {}
        self._taken: set[str] = set()

    def place(self, name: str, shape: Shape) -> str:
        """A map that no layer gives: the input, or what is missing behind a refused node."""
        unique = self._unique(name)
        self.shapes[unique] = shape
        return unique

    def convolve(
        self, operator: Operator, source: str, weight: DabTensor, window: Window, bias: str = ""
    ) -> str:
        """A convolution by filters [O, kH, kW, C], which become a constant of the model."""
        self.tensors.append(weight)
        values = self._window_values(window, "weight", weight.name)
        values |= {"input": source, "bias": bias, "dilations": (1, 1)}
        height, width, _ = self.shapes[source]
        output = (*window.output((height, width)), weight.shape[0])
        return self._add(operator, values, output, window.kernel)

    def pool(self, operator: Operator, source: str, window: Window) -> str:
        """A pooling over height and width."""
        height, width, channels = self.shapes[source]
        values = self._window_values(window, "kernel_shape", window.kernel) | {"input": source}
        output = (*window.output((height, width)), channels)
        return self._add(operator, values, output, window.kernel)

    def copy(self, source: str) -> str:
        """The same numbers in a map of their own."""
        return self.pool(Operator.MaxPool, source, Window((1, 1)))

    def affine(self, source: str, a: _Array, b: _Array) -> str:
        """A · x + b with one number for each channel, over what it reads."""
        constants = {"a": self.constant("a", a), "b": self.constant("b", b)}
        return self.pointwise(Operator.Affine, {"input": source, **constants})

    def scale(self, source: str, factor: float, offset: float) -> str:
        """Factor · x + offset; no layer where that changes nothing."""
        if (factor, offset) == (1, 0):
            return source
        channels = self.shapes[source][2]
        a, b = (np.full(channels, number, np.float32) for number in (factor, offset))
        return self.affine(source, a, b)

    def pointwise(self, operator: Operator, values: dict[str, Value]) -> str:
        """A layer that gives a map of the size of the first that it reads."""
        first = next(value for value in values.values() if value in self.shapes)
        return self._add(operator, values, self.shapes[str(first)], (1, 1))

    def concatenate(self, one: str, other: str) -> str:
        """Two maps joined along the channels."""
        height, width, channels = self.shapes[one]
        output = (height, width, channels + self.shapes[other][2])
        return self._add(Operator.Concat, {"inputs": (one, other), "axis": 3}, output, (1, 1))

    def constant(self, what: str, array: _Array) -> str:
        """Name of a float constant; equal ones are kept once."""
        key = (array.shape, array.tobytes())
        if key not in self._constants:
            tensor = self.tensor(what, array)
            self.tensors.append(tensor)
            self._constants[key] = tensor.name
        return self._constants[key]

    def tensor(self, what: str, array: _Array) -> DabTensor:
        """A float constant that is not a part of the model yet."""
        flat = np.ascontiguousarray(array, np.float32).reshape(-1)
        return DabTensor(self._unique(f"{self.node}_{what}"), array.shape, flat)

    def filters(self, kernels: _Array, strides: tuple[int, int]) -> DabTensor:
        """±1 filters [O, kH, kW, C] in bits."""
        packed = pack_filters(kernels, strides)
        return DabTensor(self._unique(f"{self.node}_signs"), kernels.shape, packed)

    def _window_values(self, window: Window, field: str, value: Value) -> dict[str, Value]:
        pads = (window.padding,) * 4
        return {field: value, "pads": pads, "strides": window.strides}

    def _add(
        self, operator: Operator, values: dict[str, Value], output: Shape, kernel: tuple[int, int]
    ) -> str:
        name = self.place(f"{self.node}_{operator.name.lower()}", output)
        layer = DabLayer(operator, self.node, {**values, "output": name})
        inputs = tuple(self.shapes[item] for item in layer.inputs if item in self.shapes)
        for refusal in limit_refusals(Placed(layer, inputs, output, kernel)):
            # Several layers of one node may be beyond one limit.
            if not any((refusal.rule, refusal.node) == (x.rule, x.node) for x in self.refusals):
                self.refusals.append(refusal)
        self.layers.append(layer)
        self.layers_of.setdefault(self.node, []).append(layer)
        return name

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self._taken:
            unique, number = f"{name}_{number}", number + 1
        self._taken.add(unique)
        return unique
