"""Pad binary layers with −1, whatever they were padded with: another network.

Requires: a graph as `load_graph` gives it.
Ensures: no binary layer pads with 0 or +1 in terms of its signs. Engines without a zero in
their bits run such a network at no cost, and it is what published daBNN figures are of; but
its outputs are others. This is the one pass beside the FP32 twin's that changes them.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.lowering.layer_input import new_pad


def minus_one_padding(model: ir.Model) -> int:
    """Apply the pass to `model`, in place; gives the number of layers that it changed."""
    count = 0
    for conv in binary_convs(model):
        node, facts = conv.node, conv.facts
        if not any(facts.pads) or facts.pad_value == -1 or len(shape_of(node.outputs[0])) != 4:
            continue
        value = node.inputs[0]
        assert value is not None
        before = value.producer()
        if before is not None and before.op_type == "Pad":  # part of `facts.pads`
            value = before.inputs[0]
            assert value is not None
        name = f"{facts.name}_padded_low"
        pad = new_pad(model.graph, value, facts.pads, conv.binarization.low, name)
        model.graph.insert_before(node, pad)
        node.replace_input_with(0, pad.outputs[0])
        node.attributes.pop("auto_pad", None)
        node.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
        count += 1
    RemoveUnusedNodesPass()(model)
    return count
