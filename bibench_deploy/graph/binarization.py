"""Recognise binarized activations and weights by what they compute, whatever wrote them.

An activation is binarized when the pointwise operations between two tensors turn every
number into one of two opposite values, with a single step. Walking back from a
convolution's input, the nearest such tensor is the one that is binarized: the slice in
between is run on probes, never matched by its operators. A weight is binary when each
output channel holds one magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of, evaluate

_POINTWISE = frozenset(
    ["Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Erf", "Floor", "Greater",
     "GreaterOrEqual", "HardSigmoid", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not",
     "Or", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sqrt", "Sub", "Tanh",
     "Where", "Xor"]
)  # fmt: skip
# The longest binarization seen in public code takes 26 operators.
_LONGEST_SLICE = 64

_POSITIVE_PROBES = np.array(
    [1e-30, 1e-20, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.25, 0.5, 0.75, 0.999, 1.0, 1.001,
     1.5, 2.0, 3.0, 10.0, 100.0, 1e4],
    dtype=np.float32,
)  # fmt: skip
_PROBES = np.concatenate([-_POSITIVE_PROBES[::-1], np.zeros(1, np.float32), _POSITIVE_PROBES])


# (α·sign(W) − c) + c with a clipped c of up to 1 rounds to 2^-24 of the larger of both, twice.
_SAME_MAGNITUDE = 4 * 2.0**-24
_STE_RANGE = 1.0


@dataclass(frozen=True)
class Binarization:
    """How one tensor becomes binary.

    Attributes:
        source: the float tensor that is binarized.
        result: the tensor of two values, after the slice.
        nodes: the slice between both, in topological order.
        low: what numbers below the threshold become.
        high: what numbers above it become.
        at_threshold: what the threshold itself becomes: `high`, `low`, or a third value
            such as the 0 of ONNX Sign.
        threshold: where the step is.
    """

    source: ir.Value
    result: ir.Value
    nodes: tuple[ir.Node, ...]
    low: float
    high: float
    at_threshold: float
    threshold: float

    @property
    def middle(self) -> float:
        """Halfway between both values: 0 where they are opposite."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        """Half the step: negative where the higher number becomes the lower value."""
        return (self.high - self.low) / 2

    @property
    def is_sign(self) -> bool:
        """Whether it is a sign function times a positive constant, apart from its value at 0."""
        return self.threshold == 0 and self.low == -self.high and self.high > 0


def find_binarization(model: ir.Model, value: ir.Value) -> Binarization | None:
    """Find the tensor whose binarization `value` is.

    Args:
        model: the model, normalised as `load_graph` leaves it.
        value: a tensor that may be binary, such as a convolution's input.

    Returns:
        The binarization with the shortest slice, or None where `value` cannot be shown
        to take two values.
    """
    nodes: list[ir.Node] = []
    leaves: list[ir.Value] = [value]
    order = {node: index for index, node in enumerate(model.graph)}
    while len(nodes) < _LONGEST_SLICE:
        # The leaf computed last cannot be read by any other leaf's producer: open it first.
        opened = max(leaves, key=lambda leaf: _place(order, leaf))
        producer = opened.producer()
        if producer is None or producer.op_type not in _POINTWISE or producer.domain != "":
            return None
        if len(producer.outputs) != 1 or not _constants_are_uniform(producer):
            return None
        nodes.append(producer)
        leaves = [leaf for leaf in leaves if leaf is not opened]
        for operand in producer.inputs:
            if operand is not None and constant_of(operand) is None and operand not in leaves:
                leaves.append(operand)
        if len(leaves) == 1 and leaves[0].dtype == ir.DataType.FLOAT:
            found = _probe(model, leaves[0], value, sorted(nodes, key=order.__getitem__))
            if found is not None:
                return found
    return None


def _place(order: dict[ir.Node, int], value: ir.Value) -> int:
    producer = value.producer()
    return -1 if producer is None else order[producer]


def _constants_are_uniform(node: ir.Node) -> bool:
    arrays = [constant_of(operand) for operand in node.inputs]
    return all(array is None or array.size == 1 for array in arrays)


def _probe(
    model: ir.Model, source: ir.Value, result: ir.Value, nodes: Sequence[ir.Node]
) -> Binarization | None:
    def run(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # A leading axis keeps a 1-D feed from being taken for a scalar constant's shape.
        row: npt.NDArray[np.float32] = np.asarray(
            evaluate(model, nodes, [source], [result], [points[None]])[0], dtype=np.float32
        )[0]
        return row

    if result.dtype != ir.DataType.FLOAT:
        return None
    outputs = run(_PROBES)
    low, high = float(outputs[0]), float(outputs[-1])
    if not np.isfinite(outputs).all() or low == high:
        return None
    is_low, is_high = outputs == np.float32(low), outputs == np.float32(high)
    steps = np.flatnonzero(is_high)[0]
    if not is_high[steps:].all() or not is_low[: steps - 1].all():
        return None
    # Everything below `steps - 1` is low; that probe itself is low, or sits on the threshold.
    threshold = _PROBES[steps - 1]
    if is_low[steps - 1]:
        threshold = _bisect(run, threshold, _PROBES[steps], np.float32(high))
    # A step between −1e-38 and 1e-38 is a step at zero: denormal numbers are not compared.
    if abs(threshold) < np.finfo(np.float32).tiny:
        threshold, at_threshold = np.float32(0), outputs[len(_PROBES) // 2]
    else:
        # Two steps that lie close together pass the probes: look at the threshold's neighbours.
        neighbours = _float_of(_ordered(threshold) + np.arange(-2, 2))
        two_below, below, here, above = run(neighbours)
        at_threshold, is_single = here, above == high
        if below != low:
            threshold, at_threshold = neighbours[1], below
            is_single = two_below == low and here == high
        if not is_single:
            return None
    return Binarization(
        source, result, tuple(nodes), low, high, float(at_threshold), float(threshold)
    )


def _bisect(
    run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    below: np.float32,
    above: np.float32,
    high: np.float32,
) -> np.float32:
    """The smallest float32 in (below, above] that becomes `high`, for a single step."""
    low_key, high_key = _ordered(below), _ordered(above)
    while high_key - low_key > 1:
        keys = np.unique(np.linspace(low_key, high_key, 66, dtype=np.int64)[1:-1])
        is_high = run(_float_of(keys)) == high
        first = int(np.argmax(is_high)) if is_high.any() else len(keys)
        if first < len(keys):
            high_key = int(keys[first])
        if first > 0:
            low_key = int(keys[first - 1])
    return np.float32(_float_of(np.array([high_key]))[0])


def _ordered(number: np.float32) -> int:
    """Place of a float32 among all of them: neighbours differ by one, zeros are 0."""
    bits = int(np.float32(number).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float_of(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    magnitudes = np.abs(keys).astype(np.int32).view(np.float32)
    return np.where(keys < 0, -magnitudes, magnitudes).astype(np.float32)


def binary_weight(
    weight: npt.NDArray[np.float32], output_axis: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Split a weight into signs and one magnitude per output channel.

    Args:
        weight: float32, any shape.
        output_axis: the axis of output channels.

    Returns:
        (±1 weight of the same shape, magnitudes [O]), or None where some channel holds
        more than one magnitude, or a zero. Magnitudes that differ by rounding count as
        one, their median: straight-through arithmetic, (α·sign(W) − c) + c, leaves that.

    Example:
        >>> signs, scale = binary_weight(np.array([[0.5, -0.5], [2.0, 2.0]], np.float32))
        >>> signs.tolist(), scale.tolist()
        ([[1.0, -1.0], [1.0, 1.0]], [0.5, 2.0])
        >>> binary_weight(np.array([[0.5, 0.25]], np.float32)) is None
        True
    """
    magnitudes = np.abs(weight)
    others = tuple(axis for axis in range(weight.ndim) if axis != output_axis)
    largest, smallest = magnitudes.max(axis=others), magnitudes.min(axis=others)
    if not smallest.all() or not np.isfinite(largest).all():
        return None
    if np.array_equal(largest, smallest):
        scale = largest
    elif (
        largest - smallest
        <= np.minimum(_SAME_MAGNITUDE * np.maximum(largest, _STE_RANGE), largest / 1000)
    ).all():
        scale = np.median(magnitudes, axis=others).astype(np.float32)
    else:
        return None
    return np.where(weight >= 0, np.float32(1), np.float32(-1)), scale
