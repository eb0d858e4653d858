"""Operators that make one number of many, or weigh numbers against each other along an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator, opset_of
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor, optional, required

# (graph, tensor, axes of the tensor) → the tensor reduced, its rank kept.
_Reduce = Callable[[KerasGraph, KerasTensor, Sequence[int]], KerasTensor]


def _by(reduce: _Reduce, layer: str | None = None) -> FloatOperator:
    """A reduction over the axes that a node names.

    Args:
        reduce: the reduction.
        layer: Keras' layer that does it over height and width, if there is one.
    """

    def translate(graph: KerasGraph, node: ir.Node) -> KerasTensor:
        axes, source = _axes(node), node.inputs[0]
        assert source is not None
        if not axes:
            return graph.tensors[source]
        if layer is not None and axes == (2, 3) and len(shape_of(source)) == 4:
            return _over_places(graph, node, layer)
        return _reduced(graph, node, reduce, axes)

    return FloatOperator(translate, parameters=(1,))


def _global_pool(reduce: _Reduce, layer: str) -> FloatOperator:
    """A reduction over all but the first two axes, which stay."""

    def translate(graph: KerasGraph, node: ir.Node) -> KerasTensor:
        rank = len(shape_of(node.outputs[0]))
        if rank == 4:
            return _over_places(graph, node, layer)
        return _reduced(graph, node, reduce, range(2, rank))

    return FloatOperator(translate)


def _axes(node: ir.Node) -> tuple[int, ...]:
    """The axes to reduce, counted from the front; empty where the node does nothing."""
    source = node.inputs[0]
    assert source is not None
    rank = len(shape_of(source))
    listed = list(node.attributes.get_ints("axes", ()))
    # Since opset 18 (ReduceSum since 13) the axes are an input.
    if (array := optional(node, 1)) is not None:
        listed = array.reshape(-1).tolist()
    if not listed:
        does_nothing = node.attributes.get_int("noop_with_empty_axes", 0)
        return () if does_nothing else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in listed))


def _over_places(graph: KerasGraph, node: ir.Node, layer: str) -> KerasTensor:
    is_kept = len(shape_of(node.outputs[0])) == 4
    source, name = graph.input(node), graph.name(node.name)
    if layer != "GlobalAveragePooling2D":
        return getattr(graph.layers, layer)(keepdims=is_kept, name=name)(source)
    # A pooling of the whole map, not MEAN: on ARM, LCE runs it much faster, says
    # larq_zoo/core/utils.py, whose models have it so.
    mean = graph.layers.AveragePooling2D(source.shape[1:3], name=name)(source)
    return mean if is_kept else graph.layers.Flatten()(mean)


def _reduced(graph: KerasGraph, node: ir.Node, reduce: _Reduce, axes: Sequence[int]) -> KerasTensor:
    source, result = node.inputs[0], shape_of(node.outputs[0])
    assert source is not None
    shape = shape_of(source)
    tensor = reduce(graph, graph.tensors[source], sorted(graph.axis(source, axis) for axis in axes))
    if len(result) == len(shape):
        return tensor
    # The axes that are left are in ONNX's order, and may be a map again.
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    flat = graph.unmapped(tensor, kept)
    flat = graph.tf.reshape(flat, result) if 0 in axes else graph.reshaped(flat, result)
    return graph.give(node, flat)


def _maximum(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.reduce_max(x, axes, keepdims=True)


def _mean(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.reduce_mean(x, axes, keepdims=True)


def _minimum(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.reduce_min(x, axes, keepdims=True)


def _product(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.reduce_prod(x, axes, keepdims=True)


def _sum(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.reduce_sum(x, axes, keepdims=True)


def _sum_of_magnitudes(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return _sum(graph, graph.tf.maximum(x, -x), axes)


def _sum_of_squares(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return _sum(graph, x * x, axes)


def _length(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.sqrt(_sum_of_squares(graph, x, axes))


def _log_of_sum(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    return graph.tf.math.log(_sum(graph, x, axes))


def _log_of_exponentials(graph: KerasGraph, x: KerasTensor, axes: Sequence[int]) -> KerasTensor:
    # The exponential of a large number is no number any more.
    largest = _maximum(graph, x, axes)
    return _log_of_sum(graph, graph.tf.exp(x - largest), axes) + largest


def _softmax(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return _along_axis(graph, node, graph.tf.nn.softmax)


def _log_softmax(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return _along_axis(graph, node, graph.tf.nn.log_softmax)


def _along_axis(graph: KerasGraph, node: ir.Node, function: Any) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    shape = shape_of(source)
    is_old = opset_of(node) < 13
    axis = node.attributes.get_int("axis", 1 if is_old else -1) % len(shape)
    if not is_old or prod(shape[axis + 1 :]) == 1:
        return function(graph.tensors[source], axis=graph.axis(source, axis))
    # Before opset 13 every axis from this one on is one long axis.
    rows = graph.reshaped(graph.in_onnx_order(source), (prod(shape[:axis]), prod(shape[axis:])))
    return graph.give(node, graph.reshaped(function(rows, axis=-1), shape))


def _place_of_largest(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return _place(graph, node, graph.tf.argmax)


def _place_of_smallest(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return _place(graph, node, graph.tf.argmin)


def _place(graph: KerasGraph, node: ir.Node, function: Any) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    axis = node.attributes.get_int("axis", 0) % len(shape_of(source))
    # In ONNX's order: in a network that is turned, places are counted from the other end.
    place = function(graph.in_onnx_order(source), axis=axis, output_type=graph.tf.int64)
    if node.attributes.get_int("keepdims", 1):
        place = graph.tf.expand_dims(place, axis)
    return graph.give(node, place)


def _check_place(node: ir.Node) -> str | None:
    if node.attributes.get_int("select_last_index", 0):
        return "the last of several equal numbers, where TensorFlow takes the first; use that one"
    return None


def _running_sum(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    source = node.inputs[0]
    assert source is not None
    total = graph.tf.cumsum(
        graph.in_onnx_order(source),
        axis=int(required(node, 1).item()) % len(shape_of(source)),
        exclusive=bool(node.attributes.get_int("exclusive", 0)),
        reverse=bool(node.attributes.get_int("reverse", 0)),
    )
    return graph.give(node, total)


def _largest(graph: KerasGraph, node: ir.Node) -> list[KerasTensor]:
    """The largest (or smallest) numbers along an axis, and their places."""
    source = node.inputs[0]
    assert source is not None
    rank = len(shape_of(source))
    axis = node.attributes.get_int("axis", -1) % rank
    order = [*(place for place in range(rank) if place != axis), axis]
    back = [order.index(place) for place in range(rank)]
    sign = 1.0 if node.attributes.get_int("largest", 1) else -1.0
    rows = graph.in_onnx_order(source)
    rows = rows if axis == rank - 1 else graph.tf.transpose(rows, order)
    count = shape_of(node.outputs[0])[axis]
    values, places = graph.tf.math.top_k(rows if sign > 0 else -rows, count)
    results = [values if sign > 0 else -values, graph.tf.cast(places, "int64")]
    if axis != rank - 1:
        results = [graph.tf.transpose(result, back) for result in results]
    return [graph.give(node, result, index) for index, result in enumerate(results)]


OPERATORS = {
    "ArgMax": FloatOperator(_place_of_largest, _check_place),
    "ArgMin": FloatOperator(_place_of_smallest, _check_place),
    "CumSum": FloatOperator(_running_sum, parameters=(1,)),
    "GlobalAveragePool": _global_pool(_mean, "GlobalAveragePooling2D"),
    "GlobalMaxPool": _global_pool(_maximum, "GlobalMaxPooling2D"),
    "LogSoftmax": FloatOperator(_log_softmax),
    "ReduceL1": _by(_sum_of_magnitudes),
    "ReduceL2": _by(_length),
    "ReduceLogSum": _by(_log_of_sum),
    "ReduceLogSumExp": _by(_log_of_exponentials),
    "ReduceMax": _by(_maximum, "GlobalMaxPooling2D"),
    "ReduceMean": _by(_mean, "GlobalAveragePooling2D"),
    "ReduceMin": _by(_minimum),
    "ReduceProd": _by(_product),
    "ReduceSum": _by(_sum),
    "ReduceSumSquare": _by(_sum_of_squares),
    "Softmax": FloatOperator(_softmax),
    "TopK": FloatOperator(_largest, parameters=(1,)),
}
