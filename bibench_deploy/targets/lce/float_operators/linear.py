"""Matrix products."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import Array, KerasGraph, KerasTensor, optional


def _gemm(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None
    assert right is not None
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    transposes_left = bool(node.attributes.get_int("transA", 0))
    transposes_right = bool(node.attributes.get_int("transB", 0))
    weight: Array | None = constant_of(right)
    bias = optional(node, 2)
    rows, columns = shape_of(node.outputs[0])
    has_computed_bias = bias is None and len(node.inputs) > 2 and node.inputs[2] is not None
    is_row = bias is None or np.broadcast_shapes(bias.shape, (1, columns)) == (1, columns)
    if weight is not None and not transposes_left and is_row and not has_computed_bias:
        kernel: Array = (weight.T if transposes_right else weight) * np.float32(alpha)
        offset = None if bias is None else bias.reshape(-1) * np.float32(beta)
        return _dense(graph, node, left, kernel, offset)
    product = graph.tf.matmul(
        graph.in_onnx_order(left),
        graph.in_onnx_order(right),
        transpose_a=transposes_left,
        transpose_b=transposes_right,
    )
    result = product if alpha == 1 else product * alpha
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return result
    added = graph.operand(node.inputs[2], (rows, columns))
    return result + (added if beta == 1 else added * beta)


def _matmul(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None
    assert right is not None
    weight = constant_of(right)
    if weight is not None and weight.ndim == 2 and constant_of(left) is None:
        return _dense(graph, node, left, weight, None)
    return graph.give(node, graph.tf.matmul(graph.in_onnx_order(left), graph.in_onnx_order(right)))


def _dense(
    graph: KerasGraph, node: ir.Node, source: ir.Value, kernel: Array, bias: Array | None
) -> KerasTensor:
    """A product with a constant [I, O] over the last axis."""
    outputs = kernel.shape[1]
    layer = graph.layers.Dense(outputs, use_bias=bias is not None, name=graph.name(node.name))
    weights = [np.ascontiguousarray(graph.in_flat_order(source, kernel.T).T)]
    if bias is not None:
        weights.append(np.broadcast_to(bias, (outputs,)))
    is_row = len(shape_of(source)) == 2
    tensor = graph.tensors[source] if is_row else graph.in_onnx_order(source)
    return graph.give(node, graph.apply(layer, tensor, weights))


def _check_matmul(node: ir.Node) -> str | None:
    ranks = [len(shape_of(value)) for value in node.inputs if value is not None]
    if min(ranks) < 2:
        return "a product with a vector; give both operands two dimensions, by unsqueeze"
    return None


OPERATORS = {
    "Gemm": FloatOperator(_gemm),
    "MatMul": FloatOperator(_matmul, _check_matmul),
}
