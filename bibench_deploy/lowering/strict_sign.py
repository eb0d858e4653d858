"""Write signs that are −1 at their threshold as x > 0.

Requires: canonical binarization, before anything is folded.
Ensures: no sign reads x − tiny, tiny being the smallest normal float: where canonical form has
that, to say that 0 becomes −1, the sign is Greater(x, 0), else −1. For engines that take 0 for
−1. What is computed is the same for all but denormal numbers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.sign_places import sign_base

_TINY = np.finfo(np.float32).tiny


def strict_sign(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for compare in dict.fromkeys(conv.binarization.nodes[0] for conv in binary_convs(model)):
        base = sign_base(compare)
        source = _before_minus_tiny(base)
        if source is not None:
            base.replace_all_uses_with(source)  # canonical form made it for this sign alone
            compare_above(model.graph, compare)
    RemoveUnusedNodesPass()(model)


def compare_above(graph: ir.Graph, compare: ir.Node) -> None:
    """Turn Less(x, 0) → Where(−1, +1) into Greater(x, 0) → Where(+1, −1)."""
    compare.op_type = "Greater"
    high, low = (
        add_initializer(graph, f"{compare.name}_{name}", np.full((), number, np.float32))
        for name, number in (("high", 1.0), ("low", -1.0))
    )
    for use in list(compare.outputs[0].uses()):
        use.node.replace_input_with(1, high)
        use.node.replace_input_with(2, low)


def _before_minus_tiny(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    if node is None or node.op_type != "Add" or node.domain != "":
        return None
    constant = constant_of(node.inputs[1])
    is_tiny = constant is not None and constant.size == 1 and float(constant.item()) == -_TINY
    return node.inputs[0] if is_tiny else None
