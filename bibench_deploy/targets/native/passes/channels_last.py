"""Let float operators between the library's operators read and give channels last.

Requires: binary layers as the library's operators, with Transposes around them.
Ensures: no Transpose turns back what another turned; a float tensor that is binarized and read with
channels last comes from one operator; 1×1 convolutions between the library's operators are
products of matrices, whose bias the next layer adds; global average pooling reads channels last.
What is computed stays the same but for rounding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import only_reader, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.layer_input import new_node, new_slice
from bibench_deploy.targets.native.operators import (
    BINARIZE,
    BINARY_CONV,
    NUMBERS_OF,
    RESIDUAL,
    is_own,
)

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def channels_last(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Conv" and node.domain == "":
            _multiply(graph, node)
        elif node.op_type in ("GlobalAveragePool", "ReduceMean") and node.domain == "":
            _average(graph, node)
    for node in list(graph):
        if is_transpose(node, TO_NHWC) and not node.outputs[0].is_graph_output():
            _cancel(node)
    RemoveUnusedNodesPass()(model)
    for node in list(graph):
        if is_own(node, BINARY_CONV):
            _add_bias(graph, node)
    RemoveUnusedNodesPass()(model)
    graph.sort()


def is_transpose(node: ir.Node | None, order: list[int]) -> bool:
    """Whether a node turns a tensor's axes to `order`."""
    if node is None or node.op_type != "Transpose" or node.domain != "":
        return False
    return list(node.attributes.get_ints("perm", ())) == order


def _before(value: ir.Value | None) -> ir.Value | None:
    """The tensor with channels last that `value` is turned from, else None."""
    node = None if value is None else value.producer()
    return node.inputs[0] if node is not None and is_transpose(node, TO_NCHW) else None


def _cancel(node: ir.Node) -> None:
    """Let readers of a tensor with channels last read one that is there already."""
    source = node.inputs[0]
    assert source is not None
    whole = _before(source)
    if whole is None:
        for use in source.uses():
            if is_own(use.node, BINARIZE):
                whole = use.node.outputs[NUMBERS_OF[BINARIZE]]
    if whole is not None:
        node.outputs[0].replace_all_uses_with(whole)


def _turned_back(graph: ir.Graph, value: ir.Value, last: ir.Node, name: str) -> ir.Value:
    """A Transpose of [N, H, W, C] to [N, C, H, W] behind `last`."""
    count, height, width, channels = shape_of(value)
    node = ir.node("Transpose", [value], {"perm": TO_NCHW}, name=name)
    output = node.outputs[0]
    output.name, output.dtype = name, ir.DataType.FLOAT
    output.shape = ir.Shape([count, channels, height, width])
    graph.insert_after(last, node)
    return output


def _multiply(graph: ir.Graph, conv: ir.Node) -> None:
    """Write a 1×1 convolution of a tensor with channels last as a product of matrices."""
    source, weight, output = _before(conv.inputs[0]), constant_of(conv.inputs[1]), conv.outputs[0]
    if source is None or weight is None or weight.ndim != 4 or output.is_graph_output():
        return
    window = window_of(conv)
    is_pointwise = window.kernel == (1, 1) and not any(window.pads)
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if not is_pointwise or conv.attributes.get_int("group", 1) != 1:
        return
    if bias is not None and constant_of(bias) is None:
        return
    name = conv.name or str(output.name)
    added: list[ir.Node] = []
    if window.strides != (1, 1):
        down, across = window.strides
        parts = {1: slice(0, None, down), 2: slice(0, None, across)}
        added.append(new_slice(graph, source, parts, f"{name}_picked"))
        source = added[-1].outputs[0]
    matrix = np.ascontiguousarray(weight[:, :, 0, 0].T)
    factor = add_initializer(graph, f"{name}_matrix", matrix)
    shape = (*shape_of(source)[:3], len(weight))
    added.append(new_node("MatMul", [source, factor], f"{name}_product", shape))
    if bias is not None:
        added.append(new_node("Add", [added[-1].outputs[0], bias], f"{name}_biased", shape))
    graph.insert_after(conv, added)
    result = _turned_back(graph, added[-1].outputs[0], added[-1], f"{name}_given")
    output.replace_all_uses_with(result)


def _average(graph: ir.Graph, node: ir.Node) -> None:
    """Average a tensor with channels last over its places."""
    source, output = _before(node.inputs[0]), node.outputs[0]
    if source is None or output.is_graph_output():
        return
    if node.op_type == "ReduceMean":
        axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        keeps = node.attributes.get_int("keepdims", 1) == 1
        if axes is None or sorted(int(axis) % 4 for axis in axes) != [2, 3] or not keeps:
            return
    name = f"{node.name or output.name}_last"
    count, _, _, channels = shape_of(source)
    places = add_initializer(graph, f"{name}_axes", np.array([1, 2], np.int64))
    mean = new_node("ReduceMean", [source, places], name, (count, 1, 1, channels), {"keepdims": 1})
    graph.insert_after(node, mean)
    result = _turned_back(graph, mean.outputs[0], mean, f"{name}_given")
    output.replace_all_uses_with(result)


def _add_bias(graph: ir.Graph, layer: ir.Node) -> None:
    """Let a layer add the bias of the product that is its shortcut."""
    residual = layer.inputs[RESIDUAL] if len(layer.inputs) > RESIDUAL else None
    add = None if residual is None else residual.producer()
    if (
        residual is None
        or add is None
        or add.op_type != "Add"
        or only_reader(residual) is not layer
    ):
        return
    added, own = constant_of(add.inputs[1]), constant_of(layer.inputs[3])
    if added is None or own is None or added.shape != own.shape:
        return
    array = (own.astype(np.float64) + added.astype(np.float64)).astype(np.float32)
    layer.replace_input_with(3, add_initializer(graph, f"{layer.name}_both_biases", array))
    layer.replace_input_with(RESIDUAL, add.inputs[0])
