"""Operators that bring numbers to a common mean, variance or length."""

from __future__ import annotations

import math

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor, required


def _batch_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    parameters = [required(node, index) for index in (1, 2, 3, 4)]
    rank = len(shape_of(node.outputs[0]))
    if rank in (2, 4):
        layer = graph.layers.BatchNormalization(epsilon=epsilon, name=graph.name(node.name))
        return graph.apply(layer, graph.input(node), parameters)
    # Channels are not last here, and TensorFlow Lite would transpose twice.
    gamma, beta, mean, variance = (item.astype("float64") for item in parameters)
    scale = gamma / (variance + epsilon) ** 0.5
    trailing = (1,) * (rank - 2)
    factor, offset = (
        graph.tf.constant(item.reshape(-1, *trailing).astype("float32"))
        for item in (scale, beta - scale * mean)
    )
    return graph.input(node) * factor + offset


def _check_batch_norm(node: ir.Node) -> str | None:
    if node.attributes.get_int("training_mode", 0):
        return "a batch norm in training mode; export the model after model.eval()"
    return None


def _standardized(
    graph: KerasGraph, x: KerasTensor, axes: list[int], epsilon: float
) -> KerasTensor:
    """Numbers with mean 0 and variance 1 over some axes of the tensor."""
    mean = graph.tf.reduce_mean(x, axes, keepdims=True)
    centred = x - mean
    variance = graph.tf.reduce_mean(centred * centred, axes, keepdims=True)
    return centred * graph.tf.math.rsqrt(variance + epsilon)


def _instance_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    shape = shape_of(source)
    axes = [graph.axis(source, axis) for axis in range(2, len(shape))]
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    x = _standardized(graph, graph.tensors[source], axes, epsilon)
    trailing = (1,) * (len(shape) - 2)
    scale, offset = (
        graph.tf.constant(graph.constant(required(node, index).reshape(-1, *trailing), shape))
        for index in (1, 2)
    )
    return x * scale + offset


def _layer_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    shape = shape_of(source)
    first = node.attributes.get_int("axis", -1) % len(shape)
    axes = [graph.axis(source, axis) for axis in range(first, len(shape))]
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    x = _standardized(graph, graph.tensors[source], axes, epsilon)
    x = x * graph.tf.constant(graph.constant(required(node, 1), shape))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        x = x + graph.tf.constant(graph.constant(required(node, 2), shape))
    return x


def _group_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    output = node.outputs[0]
    shape = shape_of(output)
    count, channels = shape[:2]
    places = math.prod(shape[2:])
    groups = node.attributes.get_int("num_groups")
    each = channels // groups
    source = node.inputs[0]
    assert source is not None
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    scale, offset = required(node, 1), required(node, 2)
    if len(shape) == 4:
        rows = graph.reshaped(graph.tensors[source], (count, places, groups, each))
        x = _standardized(graph, rows, [1, 3], epsilon)
        _, _, height, width = shape
        x = graph.reshaped(x, (count, height, width, channels))
    else:
        rows = graph.reshaped(graph.tensors[source], (count, groups, each * places))
        x = graph.reshaped(_standardized(graph, rows, [2], epsilon), shape)
    trailing = (1,) * (len(shape) - 2)
    factor, shift = (
        graph.tf.constant(graph.constant(item.reshape(-1, *trailing), shape))
        for item in (scale, offset)
    )
    return x * factor + shift


def _local_response_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    size = node.attributes.get_int("size")
    return graph.tf.nn.lrn(
        graph.input(node),
        depth_radius=size // 2,
        bias=node.attributes.get_float("bias", 1.0),
        alpha=node.attributes.get_float("alpha", 1e-4) / size,
        beta=node.attributes.get_float("beta", 0.75),
    )


def _check_local_response_norm(node: ir.Node) -> str | None:
    is_held = node.attributes.get_int("size") % 2 and len(shape_of(node.outputs[0])) == 4
    return None if is_held else "a local response norm of even size, or not of a map; use odd size"


def _lp_norm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    axis = graph.axis(source, node.attributes.get_int("axis", -1))
    x = graph.tensors[source]
    if node.attributes.get_int("p", 2) == 1:
        return x / graph.tf.reduce_sum(graph.tf.maximum(x, -x), axis, keepdims=True)
    return x / graph.tf.sqrt(graph.tf.reduce_sum(x * x, axis, keepdims=True))


OPERATORS = {
    "BatchNormalization": FloatOperator(_batch_norm, _check_batch_norm, parameters=(1, 2, 3, 4)),
    "GroupNormalization": FloatOperator(_group_norm, parameters=(1, 2)),
    "InstanceNormalization": FloatOperator(_instance_norm, parameters=(1, 2)),
    "LRN": FloatOperator(_local_response_norm, _check_local_response_norm),
    "LayerNormalization": FloatOperator(_layer_norm, parameters=(1, 2)),
    "LpNormalization": FloatOperator(_lp_norm),
}
