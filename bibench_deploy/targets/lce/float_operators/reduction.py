"""Operators that make one number of many."""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    KerasGraph,
    KerasTensor,
)


def _global_average_pool(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    is_kept = len(shape_of(node.outputs[0])) == 4
    name = graph.name(node.name)
    return graph.layers.GlobalAveragePooling2D(keepdims=is_kept, name=name)(graph.input(node))


OPERATORS = {
    "GlobalAveragePool": FloatOperator(_global_average_pool),
    "ReduceMean": FloatOperator(_global_average_pool),
}
