"""Let a layer read another tensor, and make the nodes that passes put before and behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, only_reader, shape_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.sign_places import mark_layout


def before_sign(conv: BinaryConv) -> ir.Value:
    """The tensor that a layer in canonical form takes the sign of, as the graph is now.

    A pass that has rewritten the layer before it may have put another tensor in its place
    since the layer was found.
    """
    value = conv.binarization.nodes[0].inputs[0]
    assert value is not None
    return value


def new_node(
    operator: str,
    inputs: Sequence[ir.Value],
    name: str,
    shape: Sequence[int],
    attributes: Mapping[str, int] | None = None,
) -> ir.Node:
    """A node with one float output of `shape`, called `name` like the node; not in a graph yet."""
    node = ir.node(operator, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.shape, output.dtype = name, ir.Shape(shape), ir.DataType.FLOAT
    return node


def new_slice(graph: ir.Graph, source: ir.Value, parts: Mapping[int, slice], name: str) -> ir.Node:
    """A Slice of a tensor of known shape.

    Args:
        graph: takes the numbers that the node reads.
        source: the tensor.
        parts: axis → what to keep of it, steps included; non-negative numbers.
        name: of the node.
    """
    shape = list(shape_of(source))
    ranges = {axis: range(*part.indices(shape[axis])) for axis, part in parts.items()}
    for axis, kept in ranges.items():
        shape[axis] = len(kept)
    numbers = {
        "starts": [kept.start for kept in ranges.values()],
        "ends": [kept.stop for kept in ranges.values()],
        "axes": list(ranges),
        "steps": [kept.step for kept in ranges.values()],
    }
    inputs = [
        add_initializer(graph, f"{name}_{key}", np.array(values, np.int64))
        for key, values in numbers.items()
    ]
    return new_node("Slice", [source, *inputs], name, shape)


def new_pad(
    graph: ir.Graph, source: ir.Value, pads: Sequence[int], filler: float, name: str
) -> ir.Node:
    """A Pad of a map [N, C, H, W] or a row [N, C, L] by (top, left, bottom, right)."""
    shape = shape_of(source)
    rank = len(shape)
    begins, ends = (0, 0, *pads[4 - rank : 2]), (0, 0, *pads[6 - rank :])
    inputs = [
        source,
        add_initializer(graph, f"{name}_amounts", np.array(begins + ends, np.int64)),
        add_initializer(graph, f"{name}_value", np.full((), filler, np.float32)),
    ]
    padded = [sum(sizes) for sizes in zip(shape, begins, ends, strict=True)]
    return new_node("Pad", inputs, name, padded)


def feed(graph: ir.Graph, layer: ir.Node, conv: BinaryConv | None, added: list[ir.Node]) -> None:
    """Put nodes in front of a layer, which then reads the last of them.

    A binary layer gets a sign of its own behind them, since others may read its old one;
    whoever calls this removes what is left without a reader.

    Args:
        graph: the layer's graph.
        layer: a Conv, Gemm or MatMul.
        conv: what is known of it where it is binary, else None.
        added: nodes in order; the first reads what the layer read, before its sign.
    """
    value = added[-1].outputs[0]
    if conv is not None:
        for node in added:
            mark_layout(node)
        added = [*added, *new_sign(graph, value)]
        value = added[-1].outputs[0]
    graph.insert_before(layer, added)
    layer.replace_input_with(0, value)


def keep_part(
    graph: ir.Graph, layer: ir.Node, size: tuple[int, int], kept: Mapping[int, slice]
) -> None:
    """Let a layer whose output has grown give what it gave: a Slice, behind its batch norm.

    Args:
        graph: the layer's graph.
        layer: a Conv.
        size: height and width of its output now.
        kept: axis → the part of it that others read.
    """
    output, reader = layer.outputs[0], only_reader(layer.outputs[0])
    end = layer
    if reader is not None and reader.op_type == "BatchNormalization":
        end = reader
    result = end.outputs[0]
    output.shape = result.shape = ir.Shape([*shape_of(output)[:2], *size])
    part = new_slice(graph, result, kept, f"{layer.name}_part")
    result.replace_all_uses_with(part.outputs[0], replace_graph_outputs=True)
    part.replace_input_with(0, result)
    graph.insert_after(end, part)


def new_sign(graph: ir.Graph, value: ir.Value) -> list[ir.Node]:
    """The canonical sign of a tensor, −1 below 0 and else +1: Less and Where."""
    zero, low, high = (
        add_initializer(graph, f"sign_{name}", np.full((), number, np.float32))
        for name, number in (("threshold", 0.0), ("low", -1.0), ("high", 1.0))
    )
    compare = new_node("Less", [value, zero], f"{value.name}_is_negative", shape_of(value))
    compare.outputs[0].dtype = ir.DataType.BOOL
    choice = [compare.outputs[0], low, high]
    return [compare, new_node("Where", choice, f"{value.name}_sign", shape_of(value))]
