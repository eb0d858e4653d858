"""Recognise binarized activations and weights by what they compute, whatever wrote them.

An activation is binarized when the pointwise operations between two tensors turn every
number into one of two values, with a single step. Walking back from a convolution's input,
the nearest such tensor is the one that is binarized: the slice in between is run on probes,
never matched by its operators. A weight is binary when each output channel holds one
magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.fold_constants import constant_of, evaluate
from bibench_deploy.graph.value_range import Range, value_range

_POINTWISE = frozenset(
    ["Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Floor",
     "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual",
     "Max", "Mean", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round",
     "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh",
     "ThresholdedRelu", "Where", "Xor"]
)  # fmt: skip
# The longest binarization seen in public code takes 26 operators.
_LONGEST_SLICE = 64

# Beyond 1e4, straight-through arithmetic without a clip, (a·sign(x) − x) + x, loses its sign,
# and polynomials overflow: what lies there counts only where it is exact.
_POSITIVE_PROBES = np.unique(
    np.concatenate(
        [
            [1e-30, 1e-20, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 0.999, 1.001],
            np.arange(1, 257) / 64,
            2.0 ** np.arange(-24, 14),
            1.5 * 2.0 ** np.arange(-10, 13),
            [10.0, 100.0, 1000.0, 1e4],
        ]
    ).astype(np.float32)
)

# How many numbers of each sign are probed beyond that: 20 or more between a number and its double.
_FAR_PROBES = 2400

# (α·sign(W) − c) + c with a clipped c of up to 1 rounds to 2^-24 of the larger of both, twice.
_SAME_MAGNITUDE = 4 * 2.0**-24
_STE_RANGE = 1.0
# What counts as rounding must stay far below the step itself.
_LARGEST_NOISE = 1e-2


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
            such as the 0 of ONNX Sign. It is `low` only at the threshold 0, of which all
            numbers nearer to 0 than 2^-126 are a part.
        threshold: where the step is: the smallest number that does not become `low`.
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


@dataclass(frozen=True)
class _Step:
    """A function of one number that takes two values: `Binarization` without its graph."""

    low: float
    high: float
    at_threshold: float
    threshold: float

    @property
    def is_clean(self) -> bool:
        return self.at_threshold in (self.low, self.high)


def find_binarization(
    model: ir.Model, value: ir.Value, *, widest_for: Set[ir.Node] | None = None
) -> Binarization | None:
    """Find the tensor whose binarization `value` is.

    Only numbers that the source can hold count: Sign behind a ReLU is 0 or 1, and x >= 0
    there is always true, so no binarization. Levels that differ over the probes by less than
    2^-22 of the largest of level, 1 and probe are one level: straight-through arithmetic,
    (a·sign(x) − c) + c, leaves that. Then each level is the one nearest to the threshold.

    Args:
        model: the model, normalised as `load_graph` leaves it.
        value: a tensor that may be binary, such as a convolution's input.
        widest_for: look for the longest slice of those that have the same levels, not for the
            shortest: what stands before a step, such as a division, then is a part of it, if
            only the slice and these nodes read it.

    Returns:
        The binarization with the shortest slice that takes two values only. Where there is
        none, the shortest that takes a third value on its threshold alone; else None.
    """
    found = _walk_back(model, value, widest_for)
    return found if isinstance(found, Binarization) else None


def is_always_one_value(model: ir.Model, value: ir.Value) -> bool:
    """Whether pointwise operators make one value of every number: x >= 0 behind a ReLU."""
    return isinstance(_walk_back(model, value, None), _Constant)


def _walk_back(
    model: ir.Model, value: ir.Value, widest_for: Set[ir.Node] | None
) -> Binarization | _Constant | None:
    nodes: list[ir.Node] = []
    leaves: list[ir.Value] = [value]
    found: Binarization | None = None
    order: dict[ir.Node, int] = {}
    while len(nodes) < _LONGEST_SLICE:
        if len(leaves) > 1 and not order:
            order = {node: index for index, node in enumerate(model.graph)}
        # The leaf computed last cannot be read by any other leaf's producer: open it first.
        opened = leaves[0] if len(leaves) == 1 else max(leaves, key=lambda x: _place(order, x))
        producer = opened.producer()
        if producer is None or not _is_pointwise(producer):
            break
        nodes.append(producer)
        leaves = [leaf for leaf in leaves if leaf is not opened]
        for operand in producer.inputs:
            if operand is not None and constant_of(operand) is None and operand not in leaves:
                leaves.append(operand)
        if found is not None and widest_for is not None and _is_read(producer, nodes, widest_for):
            break
        if len(leaves) != 1 or not _is_map_of(value, leaves[0]):
            continue
        slice_nodes = tuple(reversed(nodes))
        step = _step_of(model, leaves[0], value, slice_nodes)
        if isinstance(step, _Constant):
            return found or step
        if step is None:
            continue
        reached = Binarization(
            leaves[0], value, slice_nodes, step.low, step.high, step.at_threshold, step.threshold
        )
        if found is None or _is_better(reached, found, is_widest=widest_for is not None):
            found = reached
        if step.is_clean and widest_for is None:
            break
    return found


def _is_better(reached: Binarization, found: Binarization, *, is_widest: bool) -> bool:
    is_clean = reached.at_threshold in (reached.low, reached.high)
    was_clean = found.at_threshold in (found.low, found.high)
    if is_clean != was_clean:
        return is_clean
    return is_widest and (reached.low, reached.high) == (found.low, found.high)


def _is_read(node: ir.Node, within: Sequence[ir.Node], signs: Set[ir.Node]) -> bool:
    """Whether something else than a slice and the signs reads what a node gives."""
    output = node.outputs[0]
    return output.is_graph_output() or any(
        use.node not in within and use.node not in signs for use in output.uses()
    )


def _place(order: dict[ir.Node, int], value: ir.Value) -> int:
    producer = value.producer()
    return -1 if producer is None else order[producer]


def _is_pointwise(node: ir.Node) -> bool:
    return (
        node.op_type in _POINTWISE
        and node.domain == ""
        and len(node.outputs) == 1
        and all(_number_of(operand) is not None for operand in node.inputs if _holds(operand))
    )


def _holds(operand: ir.Value | None) -> bool:
    return constant_of(operand) is not None


def _number_of(operand: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The one number that a constant holds, maybe many times; None where it holds several."""
    array = constant_of(operand)
    if array is None or array.size == 0:
        return None
    first = array.reshape(-1)[:1]
    if array.size > 1 and not (array == first).all():
        return None
    return np.asarray(first[0])


def _is_map_of(result: ir.Value, source: ir.Value) -> bool:
    """Whether `result` can be `source`, number by number: nothing has enlarged it."""
    return source.dtype == result.dtype == ir.DataType.FLOAT and (
        source.shape is None or result.shape is None or source.shape == result.shape
    )


class _Constant:
    """What is always one value: told from what is no step, for it is one of nothing."""


# A network repeats one binarization in every layer, and every pass asks for all of them.
_KNOWN: dict[tuple[object, ...], _Step | _Constant | None] = {}
_MOST_KNOWN = 4096


def _step_of(
    model: ir.Model, source: ir.Value, result: ir.Value, nodes: Sequence[ir.Node]
) -> _Step | _Constant | None:
    bounds = value_range(source)
    key = (bounds, model.opset_imports.get("", 0), *_structure(source, nodes))
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = _probe(model, source, result, nodes, bounds)
    return _KNOWN[key]


def _structure(source: ir.Value, nodes: Sequence[ir.Node]) -> list[object]:
    """What a slice computes, without the names in it: equal for slices that are equal."""
    places: dict[ir.Value, object] = {source: "source"}
    rows: list[object] = []
    for index, node in enumerate(nodes):
        operands: list[object] = []
        for operand in node.inputs:
            if operand is None or operand in places:
                operands.append(places.get(operand) if operand is not None else None)
            else:
                number = _number_of(operand)
                assert number is not None
                operands.append((number.dtype.str, number.tobytes()))
        attributes = tuple(
            sorted((name, str(item.value)) for name, item in node.attributes.items())
        )
        rows.append((node.op_type, tuple(operands), attributes))
        places[node.outputs[0]] = index
    return rows


_Floats = npt.NDArray[np.float32]
_Run = Callable[[_Floats], _Floats]


def _probe(
    model: ir.Model,
    source: ir.Value,
    result: ir.Value,
    nodes: Sequence[ir.Node],
    bounds: Range,
) -> _Step | _Constant | None:
    # Constants that a slice compares with, fed as single numbers: their shapes may differ.
    numbers = {
        operand: number
        for node in nodes
        for operand in node.inputs
        if operand is not None and (number := _number_of(operand)) is not None
    }

    def run(points: _Floats) -> _Floats:
        # A leading axis keeps a 1-D feed from being taken for a scalar constant's shape.
        fed = [points[None], *numbers.values()]
        (row,) = evaluate(model, nodes, [source, *numbers], [result], fed)
        return np.asarray(row, dtype=np.float32).reshape(-1)

    points = _points(list(numbers.values()), bounds)
    try:
        return _find_step(run, points, bounds)
    except GraphError:  # types that ONNX Runtime does not compute in: nothing can be shown
        return None


def _points(numbers: Sequence[npt.NDArray[np.generic]], bounds: Range) -> _Floats:
    """Ascending probes within the bounds: an even choice, and both sides of every constant."""
    special = [float(number) for number in numbers if number.dtype.kind in "fiu"]
    largest = float(np.finfo(np.float32).max)
    exact = np.array([item for item in special if abs(item) <= largest], np.float64)
    edges = np.concatenate([exact, -exact, exact / 2, exact * 2]).clip(-largest, largest)
    edges = edges.astype(np.float32)
    near = np.concatenate([np.nextafter(edges, np.float32(end)) for end in (-largest, largest)])
    positive = _POSITIVE_PROBES
    points = np.unique(np.concatenate([-positive, np.zeros(1, np.float32), positive, edges, near]))
    reach = _POSITIVE_PROBES[-1]
    low, high = np.float32(max(bounds[0], -reach)), np.float32(min(bounds[1], reach))
    inside = points[(points > low) & (points < high)]
    kept: _Floats = np.unique(np.concatenate([[low], inside, [high]])).astype(np.float32)
    kept += np.float32(0)  # −0 becomes 0
    return kept


def _far_points(bounds: Range) -> _Floats:
    """Ascending probes beyond the others and within the bounds, of every size up to the largest."""
    last, largest = np.float32(_POSITIVE_PROBES[-1]), np.finfo(np.float32).max
    keys = np.linspace(_ordered(last) + 1, _ordered(largest), _FAR_PROBES).astype(np.int64)
    points = np.concatenate([_float_of(-keys[::-1]), _float_of(keys)])
    inside: _Floats = points[(points >= bounds[0]) & (points <= bounds[1])]
    return inside


def _find_step(run: _Run, points: _Floats, bounds: Range) -> _Step | _Constant | None:
    outputs = run(points)
    if not np.isfinite(outputs).all():
        return None
    far = _far_points(bounds)
    far_outputs = run(far) if far.size else far
    levels_held = np.unique(np.concatenate([outputs, far_outputs]))
    if len(levels_held) == 1:
        return _Constant()
    if len(levels_held) == 2 and np.isfinite(levels_held).all():
        # No rounding anywhere: a step far out is a step as well, and a second one is one too many.
        every = np.concatenate([points, far])
        order = np.argsort(every)
        points, outputs = every[order], np.concatenate([outputs, far_outputs])[order]
    elif (outputs == outputs[0]).all():
        return None
    levels = _Levels.of(points, outputs)
    if levels is None:
        return None
    is_high = levels.is_high(points, outputs)
    first = int(np.argmax(is_high))
    if not is_high[first:].all() or not levels.is_low(points, outputs)[: first - 1].all():
        return None
    # Everything below `first - 1` is low; that probe itself is low, or sits on the threshold.
    if first == 0:
        return None
    threshold = points[first - 1]
    if levels.is_low(points[first - 1 : first], outputs[first - 1 : first])[0]:
        threshold = _bisect(run, levels, threshold, points[first])
    tiny = np.finfo(np.float32).tiny
    # A step between −1e-38 and 1e-38 is a step at zero: denormal numbers are not compared.
    if abs(threshold) <= tiny and bounds[0] <= 0 <= bounds[1]:
        zero = np.zeros(1, np.float32)
        return levels.step(zero[0], run(zero)[0])
    # Two steps that lie close together pass the probes: look at the threshold's neighbours.
    keys = np.arange(-2, 2) + _ordered(threshold)
    near = _float_of(keys)
    values = run(near)
    lows, highs = levels.is_low(near, values), levels.is_high(near, values)
    outside = (near < bounds[0]) | (near > bounds[1])
    lows, highs = lows | outside, highs | outside
    if lows[1]:
        at, is_single = 2, highs[3]
    else:
        at, is_single = 1, lows[0] and highs[2]
    return levels.step(near[at], values[at]) if is_single else None


@dataclass(frozen=True)
class _Levels:
    """The two values of a step, and how far rounding may lead away from them."""

    low: np.float32
    high: np.float32

    @staticmethod
    def of(points: _Floats, outputs: _Floats) -> _Levels | None:
        """The levels, taken where the numbers are smallest and rounding is least."""
        ends = (outputs[0], outputs[-1])
        apart = _LARGEST_NOISE * abs(float(ends[1]) - float(ends[0]))
        if apart == 0:
            return None
        near = [np.abs(outputs.astype(np.float64) - end) <= apart for end in ends]
        return _Levels(*(_nearest_to_zero(points[own], outputs[own]) for own in near))

    def _noise(self, points: _Floats) -> npt.NDArray[np.float64]:
        largest = max(abs(float(self.low)), abs(float(self.high)), _STE_RANGE)
        allowed = _SAME_MAGNITUDE * np.maximum(largest, np.abs(points.astype(np.float64)))
        return np.minimum(allowed, _LARGEST_NOISE * abs(float(self.high) - float(self.low)))

    def is_low(self, points: _Floats, outputs: _Floats) -> npt.NDArray[np.bool_]:
        is_low: npt.NDArray[np.bool_] = np.abs(outputs - np.float64(self.low)) <= self._noise(
            points
        )
        return is_low

    def is_high(self, points: _Floats, outputs: _Floats) -> npt.NDArray[np.bool_]:
        is_high: npt.NDArray[np.bool_] = np.abs(outputs - np.float64(self.high)) <= self._noise(
            points
        )
        return is_high

    def step(self, threshold: np.float32, output: np.float32) -> _Step:
        """The step at `threshold`, which becomes `output`."""
        at, here = np.array([threshold]), np.array([output])
        level = output
        if self.is_low(at, here)[0]:
            level = self.low
        elif self.is_high(at, here)[0]:
            level = self.high
        return _Step(float(self.low), float(self.high), float(level), float(threshold))


def _nearest_to_zero(points: _Floats, outputs: _Floats) -> np.float32:
    return np.float32(outputs[np.argmin(np.abs(points))])


def _bisect(run: _Run, levels: _Levels, below: np.float32, above: np.float32) -> np.float32:
    """The smallest float32 in (below, above] that becomes the high level, for a single step."""
    low_key, high_key = _ordered(below), _ordered(above)
    while high_key - low_key > 1:
        keys = np.unique(np.linspace(low_key, high_key, 1026, dtype=np.int64)[1:-1])
        numbers = _float_of(keys)
        is_high = levels.is_high(numbers, run(numbers))
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


def _float_of(keys: npt.NDArray[np.int64]) -> _Floats:
    magnitudes = np.abs(keys).astype(np.int32).view(np.float32)
    return np.where(keys < 0, -magnitudes, magnitudes).astype(np.float32)


def binary_weight(
    weight: npt.NDArray[np.float32], output_axis: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Split a weight into signs and one magnitude per output channel.

    One magnitude is evidence only where several weights agree on it. So a weight that holds
    one number per channel (a scale written as a 1×1 convolution) is binary only if all
    channels share one magnitude, and one in which more than half are zeros is not binary.

    Args:
        weight: float32, any shape.
        output_axis: the axis of output channels.

    Returns:
        (weight of −1, +1 and 0 in the same shape, magnitudes [O]), or None where some channel
        holds more than one magnitude besides 0. A channel of nothing but zeros has magnitude 0
        and signs of +1. Magnitudes that differ by rounding count as one, their median:
        straight-through arithmetic, (α·sign(W) − c) + c, leaves that.

    Example:
        >>> signs, scale = binary_weight(np.array([[0.5, -0.5], [2.0, 2.0]], np.float32))
        >>> signs.tolist(), scale.tolist()
        ([[1.0, -1.0], [1.0, 1.0]], [0.5, 2.0])
        >>> binary_weight(np.array([[0.5, 0.25]], np.float32)) is None
        True
    """
    if weight.size == 0:
        return None
    magnitudes = np.abs(weight)
    others = tuple(axis for axis in range(weight.ndim) if axis != output_axis)
    largest, smallest = magnitudes.max(axis=others), magnitudes.min(axis=others)
    if not np.isfinite(largest).all():
        return None
    if not smallest.all():
        return _weight_with_zeros(weight, magnitudes, output_axis)
    scale = largest
    if not np.array_equal(largest, smallest):
        if not _is_rounding(largest, smallest):
            return None
        scale = np.median(magnitudes, axis=others).astype(np.float32)
    if weight.size == len(scale) and not _is_one_number(scale):
        return None
    if np.array_equal(largest, smallest) and (scale == 1).all():
        return weight, scale  # the usual weight after lowering: millions of numbers
    return np.copysign(np.float32(1), weight), scale


def _weight_with_zeros(
    weight: npt.NDArray[np.float32], magnitudes: npt.NDArray[np.float32], output_axis: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    others = tuple(axis for axis in range(weight.ndim) if axis != output_axis)
    is_zero = magnitudes == 0
    scale = largest = magnitudes.max(axis=others)
    is_alive = largest > 0
    shape = [1] * weight.ndim
    shape[output_axis] = -1
    # A zero beside other numbers says nothing of their magnitude.
    is_hole = is_zero & is_alive.reshape(shape)
    held = np.where(is_hole, np.float32(np.nan), magnitudes)
    smallest = np.nanmin(held, axis=others)
    if not np.array_equal(largest, smallest):
        if not _is_rounding(largest, smallest):
            return None
        scale = np.nanmedian(held, axis=others).astype(np.float32)
    count = (~is_zero).sum(axis=others)
    size = weight.size // len(scale)
    if not is_alive.any() or 2 * count.sum() < size * is_alive.sum():
        return None
    if (count <= 1).all() and not _is_one_number(scale[is_alive]):
        return None
    signs = np.where(weight >= 0, np.float32(1), np.float32(-1))
    signs[is_hole] = 0
    return signs, scale


def _is_rounding(largest: npt.NDArray[np.float32], smallest: npt.NDArray[np.float32]) -> bool:
    """Whether magnitudes differ by no more than straight-through arithmetic leaves."""
    allowed = np.minimum(_SAME_MAGNITUDE * np.maximum(largest, _STE_RANGE), largest / 1000)
    return bool((largest - smallest <= allowed).all())


def _is_one_number(scale: npt.NDArray[np.float32]) -> bool:
    return bool(scale.max() - scale.min() <= scale.max() / 1000)
