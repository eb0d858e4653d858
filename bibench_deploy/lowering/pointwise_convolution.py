"""Make convolutions of one tap of binary linear layers that run over places.

Requires: a graph as `load_graph` gives it; before the canonical binarization.
Ensures: no binary layer is a product of more than two dimensions. Tokens [N, T, F] become a
map [N, F, 1, T], a map with channels last [N, H, W, F] becomes [N, F, H, W]; the layer is a
1×1 convolution of that, and what multiplies its features or is added to them stands right
behind it. From there on a Transpose gives others the old order. What is computed is the
same to the bit.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer

_PER_FEATURE = frozenset(["Add", "Div", "Mul", "Sub"])
_FEATURES_FIRST = (0, 3, 1, 2)
_FEATURES_LAST = (0, 2, 3, 1)


def pointwise_convolution(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    # Layers that read the same tensor share its map.
    maps: dict[ir.Value, ir.Value] = {}
    for conv in binary_convs(model):
        if conv.facts.kind == "linear" and len(conv.facts.output_shape) > 2:
            _rewrite(model.graph, conv.node, maps)


def _rewrite(graph: ir.Graph, node: ir.Node, maps: dict[ir.Value, ir.Value]) -> None:
    source, output, kernel = node.inputs[0], node.outputs[0], constant_of(node.inputs[1])
    assert source is not None
    assert kernel is not None
    name = node.name or str(output.name)
    count, *places, _ = shape_of(source)
    size = tuple(places) if len(places) == 2 else (1, prod(places))
    if source not in maps:
        maps[source] = _map_of(graph, node, source, size)
    weight = add_initializer(
        graph, f"{name}_kernel", np.ascontiguousarray(kernel.T[:, :, None, None])
    )
    layer = ir.node("Conv", [maps[source], weight], name=name)
    layer.metadata_props.update(node.metadata_props)
    shape = (count, kernel.shape[1], *size)
    _describe(layer, f"{name}_map", shape)
    graph.insert_before(node, layer)

    # What is computed feature by feature moves to the map's side of the Transpose.
    value, end, last = layer.outputs[0], output, node
    while (reader := only_reader(end)) is not None and _is_per_feature(reader, end):
        value = _on_map(graph, reader, end, value, shape)
        end, last = reader.outputs[0], reader
    back = [_transpose(value, _FEATURES_LAST, f"{name}_features_last")]
    if len(places) != 2:
        flat = shape_of(end)
        back.append(_reshape(graph, back[0].outputs[0], flat, f"{name}_as_given"))
    graph.insert_after(last, back)
    end.replace_all_uses_with(back[-1].outputs[0], replace_graph_outputs=True)
    while last is not node:
        before = next(item for item in last.inputs if item is not None and _is_computed(item))
        graph.remove(last, safe=True)
        producer = before.producer()
        assert producer is not None
        last = producer
    graph.remove(node, safe=True)


def _map_of(graph: ir.Graph, node: ir.Node, source: ir.Value, size: tuple[int, ...]) -> ir.Value:
    """The map [N, F, H, W] of a tensor [N, …, F], made in front of its first reader."""
    shape, name = shape_of(source), source.name
    added: list[ir.Node] = []
    value = source
    if len(shape) != 4:
        added.append(_reshape(graph, value, (shape[0], *size, shape[-1]), f"{name}_as_rows"))
        value = added[0].outputs[0]
    added.append(_transpose(value, _FEATURES_FIRST, f"{name}_as_map"))
    graph.insert_before(node, added)
    return added[-1].outputs[0]


def _is_computed(value: ir.Value) -> bool:
    return constant_of(value) is None


def _is_per_feature(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node computes with one constant number for each feature, the last axis."""
    if node.op_type not in _PER_FEATURE or node.domain != "":
        return False
    arrays = [array for item in node.inputs if (array := constant_of(item)) is not None]
    is_same = shape_of(node.outputs[0]) == shape_of(value)
    return is_same and len(arrays) == 1 and all(size == 1 for size in arrays[0].shape[:-1])


def _on_map(
    graph: ir.Graph, node: ir.Node, old: ir.Value, value: ir.Value, shape: tuple[int, ...]
) -> ir.Value:
    """The same operator on the map [N, O, H, W]."""
    operands: list[ir.Value] = []
    for item in node.inputs:
        array = constant_of(item)
        if item is old or array is None:
            operands.append(value)
        else:
            operands.append(
                add_initializer(graph, f"{node.name}_per_channel", array.reshape(1, -1, 1, 1))
            )
    copy = ir.node(node.op_type, operands, name=f"{node.name}_on_map")
    _describe(copy, f"{node.outputs[0].name}_on_map", shape)
    graph.insert_before(node, copy)
    return copy.outputs[0]


def _transpose(value: ir.Value, order: tuple[int, ...], name: str) -> ir.Node:
    node = ir.node("Transpose", [value], {"perm": order}, name=name)
    shape = shape_of(value)
    _describe(node, name, tuple(shape[axis] for axis in order))
    return node


def _reshape(graph: ir.Graph, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Node:
    target = add_initializer(graph, f"{name}_shape", np.array(shape, np.int64))
    node = ir.node("Reshape", [value, target], name=name)
    _describe(node, name, shape)
    return node


def _describe(node: ir.Node, name: str, shape: tuple[int, ...]) -> None:
    output = node.outputs[0]
    output.name, output.shape, output.dtype = name, ir.Shape(shape), ir.DataType.FLOAT
