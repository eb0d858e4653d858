"""Matrix products."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    KerasGraph,
    KerasTensor,
    optional,
    required,
)


def _linear(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    weight = required(node, 1)
    rows = weight if node.attributes.get_int("transB") else weight.T
    source = node.inputs[0]
    assert source is not None
    bias = optional(node, 2)
    layer = graph.layers.Dense(rows.shape[0], use_bias=bias is not None, name=graph.name(node.name))
    kernel = graph.in_flat_order(source, rows).T
    weights = [kernel]
    if bias is not None:
        weights.append(np.broadcast_to(bias.reshape(-1), (rows.shape[0],)))
    return graph.apply(layer, graph.tensors[source], weights)


OPERATORS = {
    "Gemm": FloatOperator(_linear),
    "MatMul": FloatOperator(_linear),
}
