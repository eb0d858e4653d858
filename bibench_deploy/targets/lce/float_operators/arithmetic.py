"""Two operands or more, number by number: arithmetic, comparisons and choices."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import KerasGraph, KerasTensor, optional

_Combine = Callable[[KerasGraph, KerasTensor, KerasTensor], KerasTensor]


def _of_pairs(combine: _Combine) -> FloatOperator:
    """An operator whose operands broadcast against each other; several go from left to right."""

    def translate(graph: KerasGraph, node: ir.Node) -> KerasTensor:
        shape = shape_of(node.outputs[0])
        values = [value for value in node.inputs if value is not None]
        if _needs_guard(graph, values, shape):
            return _guarded(graph, combine, values, shape)
        operands = [graph.operand(value, shape) for value in values]
        return reduce(lambda left, right: combine(graph, left, right), operands)

    return FloatOperator(translate)


def _needs_guard(graph: KerasGraph, values: list[ir.Value], shape: tuple[int, ...]) -> bool:
    """Whether a constant that is no number per channel would meet a binary layer's output."""
    if len(shape) != 4:
        return False
    arrays = [array for value in values if (array := constant_of(value)) is not None]
    is_rank_held = all(graph.constant(array, shape).ndim < 2 for array in arrays)
    computed = [value for value in values if constant_of(value) is None]
    return not is_rank_held and any(graph.is_behind_binary_layer(value) for value in computed)


def _guarded(
    graph: KerasGraph, combine: _Combine, values: list[ir.Value], shape: tuple[int, ...]
) -> KerasTensor:
    """Combine operands as [N, H·W, C], with a reshape between them and a binary layer.

    LCE fuses a constant behind a binary layer whatever its shape, and its interpreter dies on
    any but one number per channel. A reshape in between keeps the two apart.
    """
    count, channels, height, width = shape
    operands = []
    for value in values:
        array = constant_of(value)
        if array is None:
            tensor = graph.operand(value, shape)
            repeats = (1, height // tensor.shape[1], width // tensor.shape[2], 1)
            tensor = tensor if repeats == (1, 1, 1, 1) else graph.tf.tile(tensor, repeats)
            operands.append(graph.reshaped(tensor, (1, height * width, tensor.shape[3])))
        else:
            nhwc = graph.constant(array, shape)
            nhwc = nhwc if nhwc.ndim == 4 else nhwc.reshape(1, 1, 1, -1)
            spread = np.broadcast_to(nhwc, (nhwc.shape[0], height, width, nhwc.shape[3]))
            rows = np.ascontiguousarray(spread).reshape(-1, height * width, nhwc.shape[3])
            operands.append(graph.tf.constant(rows))
    result = reduce(lambda left, right: combine(graph, left, right), operands)
    return graph.reshaped(result, (count, height, width, channels))


def _add(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    if any(constant_of(value) is not None for value in node.inputs):
        return _SUM.translate(graph, node)
    shape = shape_of(node.outputs[0])
    operands = [graph.operand(value, shape) for value in node.inputs if value is not None]
    return graph.layers.Add(name=graph.name(node.name))(operands)


def _mean(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return _SUM.translate(graph, node) / float(len(node.inputs))


def _not(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    return graph.tf.logical_not(graph.input(node))


def _where(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    shape = shape_of(node.outputs[0])
    condition, *values = [value for value in node.inputs if value is not None]
    choice = graph.operand(condition, shape)
    arrays = [optional(node, 1), optional(node, 2)]
    if all(array is not None and array.size == 1 and np.isfinite(array).all() for array in arrays):
        # LCE takes a choice between −1 and +1 for a binarization, wherever it stands.
        one, other = (float(array.item()) for array in arrays if array is not None)
        cast, float32 = graph.tf.cast, graph.tf.float32
        return cast(choice, float32) * one + cast(graph.tf.logical_not(choice), float32) * other
    one_tensor, other_tensor = (graph.operand(value, shape) for value in values)
    return graph.tf.where(choice, one_tensor, other_tensor)


_SUM = _of_pairs(lambda _, left, right: left + right)

OPERATORS = {
    "Add": FloatOperator(_add),
    "And": _of_pairs(lambda graph, left, right: graph.tf.logical_and(left, right)),
    "Div": _of_pairs(lambda _, left, right: left / right),
    "Equal": _of_pairs(lambda graph, left, right: graph.tf.equal(left, right)),
    "Greater": _of_pairs(lambda graph, left, right: graph.tf.greater(left, right)),
    "GreaterOrEqual": _of_pairs(lambda graph, left, right: graph.tf.greater_equal(left, right)),
    "Less": _of_pairs(lambda graph, left, right: graph.tf.less(left, right)),
    "LessOrEqual": _of_pairs(lambda graph, left, right: graph.tf.less_equal(left, right)),
    "Max": _of_pairs(lambda graph, left, right: graph.tf.maximum(left, right)),
    "Mean": FloatOperator(_mean),
    "Min": _of_pairs(lambda graph, left, right: graph.tf.minimum(left, right)),
    "Mul": _of_pairs(lambda _, left, right: left * right),
    "Not": FloatOperator(_not),
    "Or": _of_pairs(lambda graph, left, right: graph.tf.logical_or(left, right)),
    "Pow": _of_pairs(lambda graph, left, right: graph.tf.pow(left, right)),
    "Sub": _of_pairs(lambda _, left, right: left - right),
    "Sum": _SUM,
    "Where": FloatOperator(_where),
    "Xor": _of_pairs(lambda graph, left, right: graph.tf.not_equal(left, right)),
}
