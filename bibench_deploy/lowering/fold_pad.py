"""Fold a Pad of zeros into the convolutions that read it.

Requires: a graph as `load_graph` gives it, or any form of it.
Ensures: no float convolution reads a Pad that only adds zeros around a map: they are its own
padding. LCE's converter takes a separate pad before a strided convolution for TensorFlow's
SAME, which pads elsewhere, without a word; a convolution's own padding is planned. What is
computed is the same to the bit.
"""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of


def fold_pad(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    graph = model.graph
    for node in list(graph):
        pads = _zero_pads(node)
        if pads is None or node.inputs[0] is None:
            continue
        for use in list(node.outputs[0].uses()):
            if use.node.op_type == "Conv" and use.idx == 0:
                _pad_itself(use.node, node.inputs[0], pads)
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)


def _zero_pads(node: ir.Node) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) of a Pad that adds zeros around a map, else None."""
    if node.op_type != "Pad" or node.domain != "" or len(shape_of(node.outputs[0])) != 4:
        return None
    amounts, filler, axes = (
        constant_of(node.inputs[index]) if index < len(node.inputs) else None for index in (1, 2, 3)
    )
    is_zero = filler is None or not filler.any()
    if node.attributes.get_string("mode", "constant") != "constant" or not is_zero:
        return None
    if amounts is None:
        return None
    listed = [axis % 4 for axis in axes.tolist()] if axes is not None else list(range(4))
    near = dict(zip(listed, amounts.tolist()[: len(listed)], strict=True))
    far = dict(zip(listed, amounts.tolist()[len(listed) :], strict=True))
    if any(near.get(axis, 0) or far.get(axis, 0) for axis in (0, 1)):
        return None
    pads = (near.get(2, 0), near.get(3, 0), far.get(2, 0), far.get(3, 0))
    return pads if min(pads) >= 0 else None


def _pad_itself(conv: ir.Node, source: ir.Value, pads: tuple[int, int, int, int]) -> None:
    own = window_of(conv).pads
    conv.attributes.pop("auto_pad", None)
    total = [one + other for one, other in zip(own, pads, strict=True)]
    conv.attributes["pads"] = ir.AttrInt64s("pads", total)
    conv.replace_input_with(0, source)
