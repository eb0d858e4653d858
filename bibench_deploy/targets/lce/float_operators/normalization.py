"""Operators that bring numbers to a common mean and variance."""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    KerasGraph,
    KerasTensor,
    required,
)


def _batch_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    layer = graph.layers.BatchNormalization(
        epsilon=node.attributes.get_float("epsilon", 1e-5), name=graph.name(node.name)
    )
    return graph.apply(layer, graph.input(node), [required(node, i) for i in (1, 2, 3, 4)])


OPERATORS = {
    "BatchNormalization": FloatOperator(_batch_norm),
}
