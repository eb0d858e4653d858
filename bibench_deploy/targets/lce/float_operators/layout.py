"""Operators that only move numbers."""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    KerasGraph,
    KerasTensor,
)


def _flatten(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    shape = shape_of(source)
    if len(shape) == 2:
        return graph.tensors[source]
    if shape[2:] != (1, 1):
        graph.flattened[node.outputs[0]] = (shape[1], shape[2], shape[3])
    return graph.layers.Flatten(name=graph.name(node.name))(graph.tensors[source])


def _concat(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    tensors = [graph.input(node, index) for index in range(len(node.inputs))]
    return graph.layers.Concatenate(-1, name=graph.name(node.name))(tensors)


OPERATORS = {
    "Concat": FloatOperator(_concat),
    "Flatten": FloatOperator(_flatten),
    "Reshape": FloatOperator(_flatten),
}
