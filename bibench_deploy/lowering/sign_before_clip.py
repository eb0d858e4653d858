"""Let signs read a tensor before a clip that something else reads too.

Requires: canonical binarization.
Ensures: no sign reads the output of a Clip (Hardtanh) whose bounds lie on both sides of 0;
it reads the clip's input, whose signs are the same. What else reads the clip, a shortcut for
instance, still does. An engine without a clip builds it from other operators, whose rounding
then touches no sign. What is computed is the same to the bit.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.sign_places import LAYOUT

# Engines take what is closer to zero for zero.
_SMALLEST = float(np.finfo(np.float32).tiny)


def sign_before_clip(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    compares = {conv.binarization.nodes[0] for conv in binary_convs(model)}
    # From the last one, so that of two in a row the signs read what is before both.
    for node in reversed(list(model.graph)):
        if node.op_type != "Clip" or node.domain != "" or not _is_around_zero(node):
            continue
        for use in list(node.outputs[0].uses()):
            # What a pass has marked as layout leads to a sign and nowhere else.
            if use.node in compares or LAYOUT in use.node.metadata_props:
                use.node.replace_input_with(use.idx, node.inputs[0])
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            model.graph.remove(node, safe=True)


def _is_around_zero(clip: ir.Node) -> bool:
    bounds = [None if item is None else constant_of(item) for item in clip.inputs[1:]]
    if any(
        item is not None and array is None
        for item, array in zip(clip.inputs[1:], bounds, strict=True)
    ):
        return False  # computed bounds
    low, high = (*bounds, None, None)[:2]
    is_below = low is None or float(low.item()) <= -_SMALLEST
    return is_below and (high is None or float(high.item()) >= _SMALLEST)
