"""Give the layers of a one-dimensional network a height of 1, so that they are of two dimensions.

Requires: a graph as `load_graph` gives it.
Ensures: no convolution, pooling or batch norm reads a tensor [N, C, L]; it reads [N, C, 1, L],
and so does everything around it that computes number by number or along an axis. Where such
a map meets something else (a product, a transposition, the graph's inputs and outputs), a
Reshape stands between. What is computed is the same to the bit.

A constant that broadcasts keeps to its axes: [C, 1] becomes [C, 1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer

_Array = npt.NDArray[np.generic]

# What these read has places along its last axis: they are why a tensor is a map.
_SPATIAL = frozenset(
    ["AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool",
     "GlobalMaxPool", "LRN", "MaxPool", "Resize"]
)  # fmt: skip
_POINTWISE = frozenset(
    ["Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf",
     "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu",
     "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or",
     "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
     "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where", "Xor"]
)  # fmt: skip
_NORMS = frozenset(["GroupNormalization", "InstanceNormalization"])
_ALONG_AXIS = frozenset(["Concat", "LogSoftmax", "LpNormalization", "Softmax", "Split"])
_REDUCTIONS = frozenset(
    ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
     "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"]
)  # fmt: skip
_RESHAPES = frozenset(["Flatten", "Reshape", "Squeeze", "Unsqueeze"])
_FOLLOWING = _POINTWISE | _NORMS | _ALONG_AXIS | _REDUCTIONS | {"Expand", "Pad", "Slice", "Tile"}

# Where each axis of [N, C, L] is in [N, C, 1, L].
_AXES = (0, 1, 3)


def two_dimensional(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    chosen = _nodes_on_maps(model.graph)
    if chosen:
        _Widener(model.graph, chosen).run()


def _nodes_on_maps(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that are to compute on maps: spatial ones, and what is tied to them."""
    rows = [node for node in graph if node.domain == "" and _rank(node.inputs, 0) == 3]
    chosen = {node for node in rows if node.op_type in _SPATIAL}
    pending = list(chosen)
    while pending:
        node = pending.pop()
        for value in _row_values(node):
            producer = value.producer()
            tied = [use.node for use in value.uses()] + ([] if producer is None else [producer])
            for other in tied:
                if other not in chosen and other.op_type in _FOLLOWING and _fits(other):
                    chosen.add(other)
                    pending.append(other)
    return chosen


def _fits(node: ir.Node) -> bool:
    """Whether nothing that a node reads or gives has more dimensions than a row."""
    values = [value for value in [*node.inputs, *node.outputs] if value is not None]
    return node.domain == "" and all(len(shape_of(value)) <= 3 for value in values)


def _rank(values: Sequence[ir.Value | None], index: int) -> int:
    value = values[index] if index < len(values) else None
    return 0 if value is None else len(shape_of(value))


def _row_values(node: ir.Node) -> list[ir.Value]:
    """The computed tensors [N, C, L] that a node reads or gives."""
    values = [*node.inputs, *node.outputs]
    return [
        value
        for value in values
        if value is not None and constant_of(value) is None and len(shape_of(value)) == 3
    ]


def _widened(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape with a height of 1 before its last axis, where it has one before that."""
    return (*shape[:-1], 1, *shape[-1:]) if len(shape) > 1 else tuple(shape)


class _Widener:
    def __init__(self, graph: ir.Graph, chosen: set[ir.Node]) -> None:
        self._graph = graph
        self._chosen = chosen
        # What the outputs of chosen nodes were before they got a height.
        self._narrow_shapes: dict[ir.Value, tuple[int, ...]] = {}
        # Maps made of tensors that no chosen node gives.
        self._maps: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        """Rewrite the chosen nodes, in graph order."""
        nodes = list(self._graph)
        for node in nodes:
            if node in self._chosen:
                self._widen(node)
            elif node.op_type in _RESHAPES and node.inputs[0] in self._narrow_shapes:
                self._reshape_map(node)
        for value, shape in self._narrow_shapes.items():
            self._give_back(value, shape)

    def _widen(self, node: ir.Node) -> None:
        shapes = [shape_of(value) for value in node.outputs]
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is not None:
            rewrite(self, node)
        else:
            self.widen_inputs(node, range(len(node.inputs)))
        for value, shape in zip(node.outputs, shapes, strict=True):
            if len(shape) == 3:
                self._narrow_shapes[value] = shape
                value.shape = ir.Shape(_widened(shape))
            else:
                self._drop_axes(value, shape)

    def _drop_axes(self, value: ir.Value, shape: tuple[int, ...]) -> None:
        """Reshape what a reduction kept, to the shape without the axes that it is to drop."""
        node = value.producer()
        assert node is not None
        assert node.inputs[0] is not None
        reshape = self._reshape(value, shape, f"{value.name}_kept")
        result = reshape.outputs[0]
        value.replace_all_uses_with(result, replace_graph_outputs=True)
        reshape.replace_input_with(0, value)
        value.name, result.name = result.name, value.name
        value.shape = None
        self._graph.insert_after(node, reshape)

    def widen_inputs(self, node: ir.Node, indices: Sequence[int]) -> None:
        """Give the inputs at some indices a height."""
        for index in indices:
            value = node.inputs[index]
            if value is not None:
                node.replace_input_with(index, self._map_of(node, value))

    def _map_of(self, node: ir.Node, value: ir.Value) -> ir.Value:
        if value in self._narrow_shapes:
            return value
        shape = shape_of(value)
        array = constant_of(value)
        if len(shape) < 2:
            return value
        if array is not None:
            return self.constant(f"{value.name}_wide", array.reshape(_widened(shape)))
        if value not in self._maps:
            reshape = self._reshape(value, _widened(shape), f"{value.name}_as_map")
            self._graph.insert_before(node, reshape)
            self._maps[value] = reshape.outputs[0]
        return self._maps[value]

    def constant(self, name: str, array: _Array) -> ir.Value:
        """A new constant of the graph."""
        return add_initializer(self._graph, name, np.ascontiguousarray(array))

    def replace_constant(self, node: ir.Node, index: int, array: _Array) -> None:
        """Give a node another constant, where it may have left out that input so far."""
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        name = f"{node.name}_{index}_wide"
        node.replace_input_with(index, self.constant(name, array))

    def _reshape(self, value: ir.Value, shape: Sequence[int], name: str) -> ir.Node:
        target = self.constant(f"{name}_shape", np.array(shape, np.int64))
        node = ir.node("Reshape", [value, target], name=name)
        output = node.outputs[0]
        output.name, output.shape, output.type = name, ir.Shape(shape), value.type
        return node

    def _reshape_map(self, node: ir.Node) -> None:
        """Let a reshape of [N, C, L] read the map itself: its numbers are in the same order."""
        output = node.outputs[0]
        shape = np.array(shape_of(output), np.int64)
        target = self.constant(f"{node.name}_shape", shape)
        reshape = ir.node("Reshape", [node.inputs[0], target], name=node.name)
        reshape.outputs[0].name = output.name
        reshape.outputs[0].shape, reshape.outputs[0].type = output.shape, output.type
        self._graph.insert_before(node, reshape)
        output.replace_all_uses_with(reshape.outputs[0], replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def _give_back(self, value: ir.Value, shape: tuple[int, ...]) -> None:
        """Reshape an output back for whatever else reads it."""
        if shape_of(value) == shape:
            return
        others = [
            use
            for use in value.uses()
            if use.node not in self._chosen and not _is_reshape_of_map(use.node)
        ]
        if not others and not value.is_graph_output():
            return
        node = value.producer()
        assert node is not None
        reshape = self._reshape(value, shape, f"{value.name}_as_row")
        self._graph.insert_after(node, reshape)
        result = reshape.outputs[0]
        for use in others:
            use.node.replace_input_with(use.idx, result)
        for index, output in enumerate(self._graph.outputs):
            if output is value:
                # The graph's output keeps its name.
                value.name, result.name = f"{value.name}_map", value.name
                self._graph.outputs[index] = result


def _is_reshape_of_map(node: ir.Node) -> bool:
    return node.op_type == "Reshape" and _rank(node.inputs, 0) == 4


def _first_input(widener: _Widener, node: ir.Node) -> None:
    widener.widen_inputs(node, [0])


def _window(widener: _Widener, node: ir.Node) -> None:
    """Convolutions and poolings: a window of height 1."""
    widener.widen_inputs(node, [0, 1] if node.op_type.startswith("Conv") else [0])
    for name, height in (
        ("dilations", 1), ("kernel_shape", 1), ("output_padding", 0), ("output_shape", 1),
        ("strides", 1),
    ):  # fmt: skip
        if given := list(node.attributes.get_ints(name, ())):
            node.attributes[name] = ir.AttrInt64s(name, [height, *given])
    if pads := list(node.attributes.get_ints("pads", ())):
        node.attributes["pads"] = ir.AttrInt64s("pads", [0, pads[0], 0, pads[1]])


def _along_axis(widener: _Widener, node: ir.Node) -> None:
    last = 1 if node.op_type in ("Softmax", "LogSoftmax") and _opset(node) < 13 else -1
    default = 0 if node.op_type == "Split" else last
    axis = _AXES[node.attributes.get_int("axis", default) % 3]
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    widener.widen_inputs(node, range(len(node.inputs)) if node.op_type == "Concat" else [0])


def _opset(node: ir.Node) -> int:
    assert node.graph is not None
    return node.graph.opset_imports.get("", 0)


def _reduction(widener: _Widener, node: ir.Node) -> None:
    listed = list(node.attributes.get_ints("axes", ()))
    array = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if array is not None:
        listed = array.reshape(-1).tolist()
    does_nothing = not listed and bool(node.attributes.get_int("noop_with_empty_axes", 0))
    mapped = {_AXES[axis % 3] for axis in listed} or ({} if does_nothing else {0, 1, 3})
    # A height of 1 may be reduced with the places: engines know that form best.
    axes = sorted({*mapped, 2} if 3 in mapped else mapped)
    widener.widen_inputs(node, [0])
    node.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)
    if listed and (array is not None or "axes" not in node.attributes):
        widener.replace_constant(node, 1, np.array(axes, np.int64))
    elif listed:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes)


def _pad(widener: _Widener, node: ir.Node) -> None:
    widener.widen_inputs(node, [0])
    pads, axes = constant_of(node.inputs[1]), None
    if len(node.inputs) > 3:
        axes = constant_of(node.inputs[3])
    assert pads is not None
    listed = range(3) if axes is None else [int(axis) % 3 for axis in axes]
    whole = np.zeros((2, 4), np.int64)
    for index, axis in enumerate(listed):
        whole[:, _AXES[axis]] = pads.reshape(2, -1)[:, index]
    widener.replace_constant(node, 1, whole.reshape(-1))
    node.resize_inputs(min(len(node.inputs), 3))


def _slice(widener: _Widener, node: ir.Node) -> None:
    widener.widen_inputs(node, [0])
    starts = constant_of(node.inputs[1])
    axes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    assert starts is not None
    listed = range(starts.size) if axes is None else [int(axis) % 3 for axis in axes]
    widener.replace_constant(node, 3, np.array([_AXES[axis] for axis in listed], np.int64))


def _repeat(widener: _Widener, node: ir.Node) -> None:
    """Expand and Tile: one copy of the height."""
    widener.widen_inputs(node, [0])
    counts = constant_of(node.inputs[1])
    assert counts is not None
    if counts.size > 1:
        widener.replace_constant(node, 1, np.insert(counts, counts.size - 1, 1))


def _resize(widener: _Widener, node: ir.Node) -> None:
    widener.widen_inputs(node, [0])
    axes = list(node.attributes.get_ints("axes", ()))
    if axes:
        node.attributes["axes"] = ir.AttrInt64s("axes", [_AXES[axis % 3] for axis in axes])
        return
    for index in (2, 3):
        array = constant_of(node.inputs[index]) if index < len(node.inputs) else None
        if array is not None and array.size:
            widener.replace_constant(node, index, np.insert(array, 2, 1))


_REWRITES: dict[str, Callable[[_Widener, ir.Node], None]] = {
    **dict.fromkeys(_ALONG_AXIS, _along_axis),
    **dict.fromkeys(_NORMS, _first_input),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "AveragePool": _window,
    "BatchNormalization": _first_input,
    "Conv": _window,
    "ConvTranspose": _window,
    "Expand": _repeat,
    "LRN": _first_input,
    "MaxPool": _window,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Tile": _repeat,
}
