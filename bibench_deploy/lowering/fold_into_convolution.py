"""Fold batch norm and constants per channel into the float convolution before them.

Requires: a graph as `load_graph` gives it, or any form of it.
Ensures: no BatchNormalization, Mul, Div, Add or Sub of one constant per channel alone reads
a float convolution: weights and bias have taken it over. With y = m·conv + b: weight' =
m·weight and bias' = m·bias + b, in double precision, rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import channel_step


def fold_into_convolution(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    binary = {conv.node for conv in binary_convs(model)}
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "" and node not in binary:
            _fold_behind(model.graph, node)


def _fold_behind(graph: ir.Graph, node: ir.Node) -> None:
    weight = constant_of(node.inputs[1])
    bias_input = node.inputs[2] if len(node.inputs) > 2 else None
    bias = None if bias_input is None else constant_of(bias_input)
    if weight is None or (bias_input is not None and bias is None):
        return
    channels = len(weight)
    multiplier = np.ones(channels)
    offset = np.zeros(channels) if bias is None else bias.astype(np.float64)
    value, folded = node.outputs[0], []
    while (reader := only_reader(value)) is not None:
        step = channel_step(reader, value, channels)
        if step is None or shape_of(reader.outputs[0]) != shape_of(value):
            break
        multiplier, offset = step[0] * multiplier, step[0] * offset + step[1]
        folded.append(reader)
        value = reader.outputs[0]
    if not folded:
        return
    scaled = weight.astype(np.float64) * multiplier.reshape(-1, *(1,) * (weight.ndim - 1))
    node.resize_inputs(3)
    for index, what, array in ((1, "weight", scaled), (2, "bias", offset)):
        name = f"{node.name}_folded_{what}"
        node.replace_input_with(index, add_initializer(graph, name, array.astype(np.float32)))
    value.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
    for old in reversed(folded):
        graph.remove(old, safe=True)
