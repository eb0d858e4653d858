"""The interval that the numbers of a tensor must lie in, from the operators that made it.

A sign behind a ReLU never sees a negative number, so it has two values, 0 and 1. Bounds hold
for all finite inputs; where an operator says nothing, they are infinite. Arithmetic on bounds
is done in float32, in which every operation used here rounds without changing the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of

Range = tuple[float, float]
EVERYTHING: Range = (-np.inf, np.inf)

_OfBounds = Callable[[list[Range]], Range]
_OfNode = Callable[[ir.Node, list[Range]], Range]

# How many operators a bound is followed back; a ReLU that matters stands much nearer.
_DEEPEST = 64
# A mean of numbers is rounded, and may end just outside of them.
_ROUNDING_OF_MEANS = 1e-4


def value_range(value: ir.Value | None) -> Range:
    """The (lowest, highest) number that a value can hold.

    Args:
        value: a tensor of a graph as `load_graph` gives it.

    Returns:
        Finite bounds where the operators before the value give them, else −∞ and ∞. NaN and
        infinite inputs are left out of account.

    Example:
        >>> x = ir.val("x", ir.DataType.FLOAT, [1, 4])
        >>> relu = ir.node("Relu", [x])
        >>> value_range(ir.node("Flatten", relu.outputs).outputs[0])
        (0.0, inf)
    """
    return _bounds(value, {}, _DEEPEST)


def _bounds(value: ir.Value | None, known: dict[ir.Value, Range], depth: int) -> Range:
    if value is None:
        return EVERYTHING
    if value in known:
        return known[value]
    array = constant_of(value)
    if array is not None:
        if array.size == 0 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            return EVERYTHING
        return float(array.min()), float(array.max())
    node = value.producer()
    if node is None or node.domain != "" or depth == 0 or not node.inputs:
        return EVERYTHING
    by_bounds, by_node = _BY_BOUNDS.get(node.op_type), _BY_NODE.get(node.op_type)
    if by_bounds is None and by_node is None:
        return EVERYTHING
    if node.op_type in _SUMS and any(_is_open(item) for item in node.inputs):
        return EVERYTHING  # along a chain of shortcuts, at once
    inputs = [_bounds(item, known, depth - 1) for item in node.inputs]
    low, high = EVERYTHING
    if by_bounds is not None:
        low, high = by_bounds(inputs)
    elif by_node is not None:
        low, high = by_node(node, inputs)
    known[value] = (low, high) if low <= high else EVERYTHING
    return known[value]


# A sum with a number without bounds has none.
_SUMS = frozenset(["Add", "Sub"])


def _is_open(value: ir.Value | None) -> bool:
    """Whether nothing is known of a value's bounds, at a glance."""
    if value is None or value.const_value is not None:
        return False
    node = value.producer()
    return node is None or not (node.op_type in _BY_BOUNDS or node.op_type in _BY_NODE)


def _same(inputs: list[Range]) -> Range:
    return inputs[0]


def _hull(inputs: list[Range]) -> Range:
    return min(low for low, _ in inputs), max(high for _, high in inputs)


def _within(low: float, high: float) -> _OfBounds:
    return lambda _: (low, high)


def _rising(function: Callable[[float], float]) -> _OfBounds:
    return lambda inputs: (function(inputs[0][0]), function(inputs[0][1]))


def _clip(node: ir.Node, inputs: list[Range]) -> Range:
    low, high = inputs[0]
    if len(inputs) > 1 and node.inputs[1] is not None:
        low, high = max(low, inputs[1][0]), max(high, inputs[1][1])
    if len(inputs) > 2 and node.inputs[2] is not None:
        low, high = min(low, inputs[2][0]), min(high, inputs[2][1])
    return low, high


def _abs(inputs: list[Range]) -> Range:
    low, high = inputs[0]
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _max(inputs: list[Range]) -> Range:
    return max(low for low, _ in inputs), max(high for _, high in inputs)


def _min(inputs: list[Range]) -> Range:
    return min(low for low, _ in inputs), min(high for _, high in inputs)


def _mean(node: ir.Node, inputs: list[Range]) -> Range:
    low, high = inputs[0]
    if any(node.attributes.get_ints("pads") or ()):
        low, high = min(low, 0.0), max(high, 0.0)
    return _widened((low, high))


def _widened(bounds: Range) -> Range:
    """What a mean of numbers within bounds may be, rounded."""
    low, high = bounds
    return low - abs(low) * _ROUNDING_OF_MEANS, high + abs(high) * _ROUNDING_OF_MEANS


def _sum_of_many(inputs: list[Range]) -> Range:
    low, high = inputs[0]
    return (0.0 if low >= 0 else -np.inf), (0.0 if high <= 0 else np.inf)


def _pad(node: ir.Node, inputs: list[Range]) -> Range:
    if node.attributes.get_string("mode", "constant") != "constant":
        return inputs[0]
    has_filler = len(inputs) > 2 and node.inputs[2] is not None
    return _hull([inputs[0], inputs[2] if has_filler else (0.0, 0.0)])


def _resize(node: ir.Node, inputs: list[Range]) -> Range:
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":  # may look outside, where another number is
        return EVERYTHING
    mode = node.attributes.get_string("mode", "nearest")
    if mode == "nearest":
        return inputs[0]
    # A cubic overshoots; a linear one is a mean of neighbours.
    return _widened(inputs[0]) if mode == "linear" else EVERYTHING


def _add(inputs: list[Range]) -> Range:
    return _of_corners(np.add, inputs)


def _sub(inputs: list[Range]) -> Range:
    return _of_corners(np.subtract, inputs)


def _mul(node: ir.Node, inputs: list[Range]) -> Range:
    if node.inputs[0] is node.inputs[1]:
        low, high = _abs(inputs[:1])
        inputs = [(low, high), (low, high)]
        if np.isfinite(high):
            return float(np.float32(low) ** 2), float(np.float32(high) ** 2)
        return float(np.float32(low) ** 2), np.inf
    return _of_corners(np.multiply, inputs)


def _div(inputs: list[Range]) -> Range:
    low, high = inputs[1]
    return EVERYTHING if low <= 0 <= high else _of_corners(np.divide, inputs)


def _of_corners(
    function: Callable[[np.float32, np.float32], np.float32], inputs: list[Range]
) -> Range:
    with np.errstate(all="ignore"):
        corners = [
            float(function(np.float32(one), np.float32(other)))
            for one in inputs[0]
            for other in inputs[1]
        ]
    # 0 · ∞ and ∞ / ∞ stand for numbers that are finite: 0 times any of them is 0.
    if any(np.isnan(corner) for corner in corners):
        if function is not np.multiply:
            return EVERYTHING
        corners = [0.0 if np.isnan(corner) else corner for corner in corners]
    return min(corners), max(corners)


def _cast(node: ir.Node, inputs: list[Range]) -> Range:
    source = node.inputs[0]
    if source is not None and source.dtype == ir.DataType.BOOL:
        return 0.0, 1.0
    is_float = node.attributes.get_int("to", 0) == int(ir.DataType.FLOAT)
    return inputs[0] if is_float else EVERYTHING


def _leaky(inputs: list[Range]) -> Range:
    low, high = inputs[0]
    return (low, high) if low >= 0 else EVERYTHING


_BY_BOUNDS: Mapping[str, _OfBounds] = {
    **dict.fromkeys(
        ["DepthToSpace", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool",
         "ReduceMax", "ReduceMin", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
         "Transpose", "Unsqueeze"],
        _same,
    ),
    **dict.fromkeys(["ReduceL1", "ReduceL2", "ReduceSumSquare", "Softplus", "Exp", "Sqrt"],
                    _within(0.0, np.inf)),
    **dict.fromkeys(["And", "Equal", "Greater", "GreaterOrEqual", "HardSigmoid", "Less",
                     "LessOrEqual", "Not", "Or", "Sigmoid", "Softmax", "Xor"], _within(0.0, 1.0)),
    **dict.fromkeys(["Cos", "Erf", "Sin", "Softsign"], _within(-1.0, 1.0)),
    **dict.fromkeys(["LeakyRelu", "PRelu"], _leaky),
    "Abs": _abs,
    "Add": _add,
    "Ceil": _rising(lambda bound: float(np.ceil(bound))),
    "Concat": _hull,
    "Div": _div,
    "Floor": _rising(lambda bound: float(np.floor(bound))),
    "Max": _max,
    "Min": _min,
    "Neg": lambda inputs: (-inputs[0][1], -inputs[0][0]),
    "ReduceSum": _sum_of_many,
    "Relu": _rising(lambda bound: max(bound, 0.0)),
    "Round": _rising(lambda bound: float(np.round(bound))),
    "Sign": _rising(lambda bound: float(np.sign(bound))),
    "Sub": _sub,
    "Tanh": lambda inputs: (
        0.0 if inputs[0][0] >= 0 else -1.0, 0.0 if inputs[0][1] <= 0 else 1.0),
    "Where": lambda inputs: _hull(inputs[1:]),
}  # fmt: skip
_BY_NODE: Mapping[str, _OfNode] = {
    **dict.fromkeys(["AveragePool", "GlobalAveragePool", "ReduceMean"], _mean),
    "Cast": _cast,
    "Clip": _clip,
    "Mul": _mul,
    "Pad": _pad,
    "Resize": _resize,
}
