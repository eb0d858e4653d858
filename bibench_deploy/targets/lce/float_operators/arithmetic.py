"""Two operands, one number out for each pair."""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    Array,
    KerasGraph,
    KerasTensor,
)


def _add(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    left, right = _operands(graph, node)
    if all(constant_of(value) is None for value in node.inputs):
        return graph.layers.Add(name=graph.name(node.name))([left, right])
    return left + right


def _sub(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    left, right = _operands(graph, node)
    return left - right


def _mul(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    left, right = _operands(graph, node)
    return left * right


def _div(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    left, right = _operands(graph, node)
    return left / right


def _operands(graph: KerasGraph, node: ir.Node) -> tuple[KerasTensor, KerasTensor]:
    rank = len(shape_of(node.outputs[0]))
    return _operand(graph, node.inputs[0], rank), _operand(graph, node.inputs[1], rank)


def _operand(graph: KerasGraph, value: ir.Value | None, rank: int) -> KerasTensor:
    assert value is not None
    array = constant_of(value)
    if array is None:
        return graph.tensors[value]
    return graph.tf.constant(channels_last(array, rank))


def channels_last(array: Array, rank: int) -> Array:
    """A constant that broadcasts against NCHW, for NHWC: a scalar or [C].

    LCE fuses constants behind a binary convolution without checking their shape, and its
    interpreter then dies on any other: only rank 0 and 1 are safe.
    """
    if array.size == 1:
        return array.reshape(())
    aligned = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if aligned.size != aligned.shape[1]:
        raise ValueError(f"a constant of shape {array.shape} is not one number per channel")
    return aligned.reshape(-1)


OPERATORS = {
    "Add": FloatOperator(_add),
    "Div": FloatOperator(_div),
    "Mul": FloatOperator(_mul),
    "Sub": FloatOperator(_sub),
}
