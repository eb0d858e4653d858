"""Functions of single numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    KerasGraph,
    KerasTensor,
    optional,
    required,
)


def _clip(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    low, high = (optional(node, index) for index in (1, 2))
    smallest = -np.inf if low is None else float(low.item())
    largest = np.inf if high is None else float(high.item())
    if smallest == 0:
        limit = None if np.isinf(largest) else largest
        return graph.layers.ReLU(max_value=limit, name=graph.name(node.name))(graph.input(node))
    return graph.tf.clip_by_value(graph.input(node), smallest, largest)


def _relu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return graph.layers.ReLU(name=graph.name(node.name))(graph.input(node))


def _prelu(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    slope = required(node, 1)
    channels = graph.input(node).shape[-1]
    is_map = len(shape_of(node.outputs[0])) == 4
    layer = graph.layers.PReLU(shared_axes=[1, 2] if is_map else None, name=graph.name(node.name))
    alpha = np.broadcast_to(slope.reshape(-1), (channels,))
    return graph.apply(layer, graph.input(node), [alpha.reshape(1, 1, -1) if is_map else alpha])


def _sigmoid(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return graph.layers.Activation("sigmoid", name=graph.name(node.name))(graph.input(node))


def _softmax(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return graph.layers.Softmax(name=graph.name(node.name))(graph.input(node))


OPERATORS = {
    "Clip": FloatOperator(_clip),
    "PRelu": FloatOperator(_prelu),
    "Relu": FloatOperator(_relu),
    "Sigmoid": FloatOperator(_sigmoid),
    "Softmax": FloatOperator(_softmax),
}
