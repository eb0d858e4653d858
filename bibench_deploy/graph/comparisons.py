"""Compare with zero what is compared with several numbers: x > t is x − t > 0.

A threshold per channel (RSign of ReActNet, FracBNN and others: `torch.where(x > t, 1, −1)`) is
then a shift and a sign, as in networks that write it so. With gradual underflow, as IEEE 754
has it, x − t is zero only where x equals t, and has the right sign everywhere else, so both
compute the same; an engine that flushes denormal numbers to zero takes x and t for equal where
they are less than 2^-126 apart.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer

_COMPARISONS = frozenset(["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])


def compare_with_zero(model: ir.Model) -> bool:
    """Subtract constants of several finite numbers before comparing, in place.

    What is compared with one number is left alone: that is a step at this number.

    Returns:
        Whether anything was rewritten; new shapes can then be inferred.
    """
    is_changed = False
    for node in list(model.graph):
        if node.op_type not in _COMPARISONS or node.domain != "" or len(node.inputs) != 2:
            continue
        for index in (0, 1):
            thresholds, other = constant_of(node.inputs[index]), node.inputs[1 - index]
            if thresholds is None or other is None or other.dtype != ir.DataType.FLOAT:
                continue
            if constant_of(other) is not None or thresholds.size < 2:
                continue
            if (thresholds == thresholds.flat[0]).all() or not np.isfinite(thresholds).all():
                continue
            _subtract(model.graph, node, index)
            is_changed = True
            break
    return is_changed


def _subtract(graph: ir.Graph, node: ir.Node, index: int) -> None:
    output = node.outputs[0]
    difference = ir.node(
        "Sub", [node.inputs[1 - index], node.inputs[index]], name=f"{node.name}_difference"
    )
    difference.outputs[0].name = f"{output.name}_difference"
    difference.outputs[0].dtype = ir.DataType.FLOAT
    difference.outputs[0].shape = output.shape
    zero = add_initializer(graph, f"{output.name}_zero", np.zeros((), np.float32))
    graph.insert_before(node, difference)
    node.replace_input_with(1 - index, difference.outputs[0])
    node.replace_input_with(index, zero)
