"""Drop a clip that only signs read: the sign of a clipped number is the number's own sign.

Requires: canonical binarization.
Ensures: no Clip around zero (Hardtanh) stands between a tensor and a sign, unless
something else reads the clipped tensor, a shortcut for instance. Exact for
low < 0 < high; at low = 0 or high = 0 the clip changes signs and stays.
"""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of


def drop_clip_before_sign(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    for conv in binary_convs(model):
        source = conv.binarization.source
        clip = source.producer()
        if clip is None or clip.op_type != "Clip" or clip.inputs[0] is None:
            continue
        compares = {conv.binarization.nodes[0]}
        if source.is_graph_output() or {use.node for use in source.uses()} != compares:
            continue
        bounds = [constant_of(item) for item in clip.inputs[1:]]
        low, high = (*bounds, None, None)[:2]
        if (low is None or low.item() < 0) and (high is None or high.item() > 0):
            source.replace_all_uses_with(clip.inputs[0])
            model.graph.remove(clip, safe=True)
