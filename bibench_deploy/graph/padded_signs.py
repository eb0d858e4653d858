"""Pad signs instead of taking the sign of padded numbers: sign(pad(x, 0)) is pad(sign(x), 0).

The sign of a padded zero is an exact 0. Padding before the sign is therefore the zero padding
of the layer that follows, which engines know, and not a tensor of three values.
"""

from __future__ import annotations

import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of


def pad_after_sign(model: ir.Model) -> bool:
    """Move each Sign of what zeros were padded around to before its Pad, in place.

    Returns:
        Whether anything was moved; new shapes can then be inferred.
    """
    is_changed = False
    for node in list(model.graph):
        if node.op_type != "Sign" or node.domain != "" or node.inputs[0] is None:
            continue
        pad = node.inputs[0].producer()
        if pad is not None and _pads_zeros(pad):
            _swap(model.graph, node, pad)
            is_changed = True
    return is_changed


def _pads_zeros(node: ir.Node) -> bool:
    if node.op_type != "Pad" or node.domain != "" or node.inputs[0] is None:
        return False
    if node.attributes.get_string("mode", "constant") != "constant":
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    filler = constant_of(node.inputs[2])
    return filler is not None and not filler.any()


def _swap(graph: ir.Graph, sign: ir.Node, pad: ir.Node) -> None:
    source, output = pad.inputs[0], sign.outputs[0]
    assert source is not None
    inner = ir.node("Sign", [source], name=sign.name)
    inner.outputs[0].name = f"{output.name}_inside"
    inner.outputs[0].type, inner.outputs[0].shape = source.type, source.shape
    # A Pad of its own: others may read the padded numbers.
    outer = ir.node(
        "Pad",
        [inner.outputs[0], *pad.inputs[1:]],
        attributes=dict(pad.attributes),
        name=f"{sign.name}_padded",
    )
    output.replace_all_uses_with(outer.outputs[0], replace_graph_outputs=True)
    graph.insert_before(sign, [inner, outer])
    graph.remove(sign, safe=True)
    outer.outputs[0].name = output.name
    outer.outputs[0].type, outer.outputs[0].shape = output.type, output.shape
