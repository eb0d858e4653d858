"""Rewrite every binary layer to one form: −1 below 0, else +1; exactly ±1 weights; its scale.

Requires: a graph as `load_graph` gives it, whose binarizations are signs at threshold 0.
Ensures: each binary layer is Less(x, 0) → Where(−1, 1) → Conv (or Gemm) with an
initializer of ±1 → Mul by a scale [1, O, 1, 1] where the magnitudes were not all 1. A
separate Pad of zeros becomes the convolution's own. The same value is computed, apart from
what exactly 0 becomes: here always +1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import BinaryConv, binary_convs
from bibench_deploy.graph.initializer import add_initializer


def canonical_binarization(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    graph = model.graph
    signs: dict[ir.Value, ir.Value] = {}
    # A layer may binarize what a layer before it gave, and that has moved behind its scale.
    moved: dict[ir.Value, ir.Value] = {}
    for conv in binary_convs(model):
        source = conv.binarization.source
        source = moved.get(source, source)
        if source not in signs:
            signs[source] = _insert_sign(graph, conv.node, source)
        moved[conv.node.outputs[0]] = _rewrite(graph, conv, signs[source])
    # The old signs have no reader left; they would still count as readers of their source.
    RemoveUnusedNodesPass()(model)


def _insert_sign(graph: ir.Graph, before: ir.Node, source: ir.Value) -> ir.Value:
    zero = add_initializer(graph, "sign_threshold", np.zeros((), np.float32))
    high = add_initializer(graph, "sign_high", np.ones((), np.float32))
    low = add_initializer(graph, "sign_low", -np.ones((), np.float32))
    # Opset 11 has no GreaterOrEqual.
    compare = ir.node("Less", [source, zero], name=f"{source.name}_is_negative")
    select = ir.node("Where", [compare.outputs[0], low, high], name=f"{source.name}_sign")
    compare.outputs[0].name = f"{source.name}_is_negative"
    select.outputs[0].name = f"{source.name}_sign"
    for node, dtype in ((compare, ir.DataType.BOOL), (select, ir.DataType.FLOAT)):
        node.outputs[0].shape = source.shape
        node.outputs[0].dtype = dtype
    graph.insert_before(before, [compare, select])
    return select.outputs[0]


def _rewrite(graph: ir.Graph, conv: BinaryConv, signs: ir.Value) -> ir.Value:
    """Rewrite one layer; gives the value that holds what its output held."""
    node, facts = conv.node, conv.facts
    is_transposed = facts.kind == "linear" and not node.attributes.get_int("transB")
    weight = conv.weight.T if is_transposed else conv.weight
    node.replace_input_with(0, signs)
    node.replace_input_with(
        1, add_initializer(graph, f"{facts.name}_signs", np.ascontiguousarray(weight))
    )
    if facts.kind == "conv":
        node.attributes.pop("auto_pad", None)
        # A one-dimensional convolution keeps its two amounts: left and right.
        is_flat = conv.weight.ndim == 3
        pads = (facts.pads[1], facts.pads[3]) if is_flat else facts.pads
        node.attributes["pads"] = ir.AttrInt64s("pads", list(pads))
    magnitude = conv.magnitude * np.float32(abs(conv.binarization.high))
    output = node.outputs[0]
    if (magnitude == 1).all():
        return output
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        # The scale belongs to the product alone: the bias moves behind it.
        node.resize_inputs(2)
    trailing = (1,) * (len(facts.output_shape) - 2)
    scale = add_initializer(graph, f"{facts.name}_scale", magnitude.reshape(1, -1, *trailing))
    scaled = ir.node("Mul", [output, scale], name=f"{facts.name}_scaled")
    last = scaled
    added = [scaled]
    if bias is not None:
        array = bias.const_value.numpy() if bias.const_value is not None else np.zeros(1)
        offset = add_initializer(graph, f"{facts.name}_offset", array.reshape(1, -1, *trailing))
        last = ir.node("Add", [scaled.outputs[0], offset], name=f"{facts.name}_biased")
        added.append(last)
    for new in added:
        new.outputs[0].name = new.name
        new.outputs[0].shape = output.shape
        new.outputs[0].dtype = ir.DataType.FLOAT
    output.replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
    scaled.replace_input_with(0, output)
    graph.insert_after(node, added)
    return last.outputs[0]
