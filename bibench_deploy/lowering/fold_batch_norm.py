"""Fold the batch norm behind a float convolution into its weights and bias.

Requires: a graph as `load_graph` gives it, or any form of it.
Ensures: no BatchNormalization of constants reads a float Conv of constant weights that nothing
else reads. What is computed stays the same but for rounding.

W' = W · γ/√(σ² + ε) and b' = (b − μ) · γ/√(σ² + ε) + β, in double precision, rounded once. In
binary layers batch norm stays: their weights must keep one magnitude.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs, only_reader, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import channel_step


def fold_batch_norm(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    binary = {conv.node for conv in binary_convs(model)}
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "" and node not in binary:
            _fold(model.graph, node)


def _fold(graph: ir.Graph, conv: ir.Node) -> None:
    output, weight = conv.outputs[0], constant_of(conv.inputs[1])
    reader = only_reader(output)
    if weight is None or reader is None or reader.op_type != "BatchNormalization":
        return
    step = channel_step(reader, output, shape_of(output)[1])
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    old = np.zeros(len(weight)) if bias is None else constant_of(bias)
    if step is None or old is None:
        return
    factor, offset = step
    folded = weight.astype(np.float64) * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    shifted = old.astype(np.float64) * factor + offset
    if len(conv.inputs) < 3:
        conv.resize_inputs(3)
    for index, what, array in ((1, "weight", folded), (2, "bias", shifted)):
        name = f"{conv.name or output.name}_folded_{what}"
        conv.replace_input_with(index, add_initializer(graph, name, array.astype(np.float32)))
    reader.outputs[0].replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(reader, safe=True)
