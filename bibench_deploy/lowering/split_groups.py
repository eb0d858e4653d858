"""Split grouped binary convolutions into one convolution per group.

LCE's fastest kernel cannot run a grouped binary convolution at all.

Requires: canonical binarization; scales and batch norm folded behind each layer.
Ensures: every binary convolution has one group. Each piece reads its own channels of the
tensor before the sign and has its part of the batch norm right behind it; a Concat puts the
channels together again. The same numbers are computed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import BinaryConv, binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.layer_input import before_sign, feed, new_node, new_slice
from bibench_deploy.lowering.sign_places import mark_layer, source_layer


def split_groups(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for conv in binary_convs(model):
        if conv.facts.group > 1:
            _split(model.graph, conv)
    RemoveUnusedNodesPass()(model)


def _split(graph: ir.Graph, conv: BinaryConv) -> None:
    node, groups = conv.node, conv.facts.group
    end = node
    reader = only_reader(node.outputs[0])
    if reader is not None and reader.op_type == "BatchNormalization":
        end = reader
    result = end.outputs[0]
    shape = shape_of(result)
    piece_shape = (shape[0], shape[1] // groups, *shape[2:])
    inputs = conv.weight.shape[1]
    pieces: list[ir.Value] = []
    for group in range(groups):
        name = f"{node.name}_group_{group}"
        part = slice(group * piece_shape[1], (group + 1) * piece_shape[1])
        own = {1: slice(group * inputs, (group + 1) * inputs)}
        piece = new_node("Conv", [before_sign(conv)], name, piece_shape)
        piece.attributes.update(node.attributes)
        piece.attributes.pop("group")
        piece.resize_inputs(len(node.inputs))
        for index in range(1, len(node.inputs)):
            piece.replace_input_with(index, _part(graph, node.inputs[index], part, name))
        mark_layer(piece, source_layer(node))
        graph.insert_before(node, piece)
        feed(graph, piece, conv, [new_slice(graph, before_sign(conv), own, f"{name}_input")])
        if end is not node:
            parameters = [_part(graph, value, part, f"{name}_norm") for value in end.inputs[1:]]
            normalization = new_node(
                end.op_type,
                [piece.outputs[0], *(value for value in parameters if value is not None)],
                f"{name}_batch_norm",
                piece_shape,
            )
            normalization.attributes.update(end.attributes)
            graph.insert_before(node, normalization)
            piece = normalization
        pieces.append(piece.outputs[0])
    whole = new_node("Concat", pieces, f"{node.name}_groups", shape, {"axis": 1})
    graph.insert_before(node, whole)
    result.replace_all_uses_with(whole.outputs[0], replace_graph_outputs=True)


def _part(graph: ir.Graph, value: ir.Value | None, part: slice, name: str) -> ir.Value | None:
    """The rows of a constant that belong to one group."""
    array = constant_of(value)
    if array is None or value is None:
        return None
    return add_initializer(graph, f"{name}_{value.name}", np.ascontiguousarray(array[part]))
