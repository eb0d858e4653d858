"""Rewrite every binary layer to one form: −1 below 0, else +1; weights of ±1; its scale.

Requires: a graph as `load_graph` gives it.
Ensures: each binary layer is x → Less(x, 0) → Where(−1, 1) → Conv (or Gemm) with weights of
−1, 0 and +1 → Mul by a scale [1, O, 1, 1] → Add of an offset [1, O, 1, 1], the last two
only where they change something (behind a product, whose features come last, [1, …, O]).
x is the tensor that was binarized, behind

  - Add of −threshold, where the threshold is not 0,
  - Reshape, Transpose …, which came between the sign and the layer,
  - Pad by ±1, where that is what the layer was padded with in terms of its signs.

Zero padding is the convolution's own. What multiplied the signs multiplies the result. The
same value is computed, apart from what exactly 0 becomes where it was neither +1 nor −1
(ONNX Sign): here +1.

A layer of activations 0 and 1 is half the layer of signs −1 and +1, plus half the sum of
its weights: a = (s + 1)/2, so W · a = W · s/2 + Σ W/2, and its padding with 0 is −1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.binarization import Binarization, find_binarization
from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.layer_input import new_node, new_pad, new_sign
from bibench_deploy.lowering.sign_places import mark_layer, mark_layout


def canonical_binarization(
    model: ir.Model,
    *,
    is_widest: bool = False,
    is_chosen: Callable[[BinaryConv], bool] = lambda _: True,
) -> None:
    """Apply the pass to `model`, in place.

    Args:
        model: the graph.
        is_chosen: whether a layer is rewritten.
        is_widest: take each sign as far back as it is one: over a ReLU, Tanh or division that
            nothing else reads, and that then goes. The same signs, but a network with other
            operators: not for the FP32 twin.
    """
    rewriter = _Rewriter(model.graph)
    # Signs times several numbers per image are no bits: a target refuses what is left so.
    found = [conv for conv in binary_convs(model) if conv.is_factor_movable]
    convs = [conv for conv in found if is_chosen(conv)]
    if is_widest:
        signs = {node for conv in convs for node in conv.binarization.nodes}
        convs = [_widened(model, conv, signs) for conv in convs]
    for conv in convs:
        rewriter.rewrite(conv)
    # The old signs have no reader left; they would still count as readers of their source.
    RemoveUnusedNodesPass()(model)


def _widened(model: ir.Model, conv: BinaryConv, signs: set[ir.Node]) -> BinaryConv:
    """The layer with the longest slice of operators that makes signs and nothing else."""
    widest = find_binarization(model, conv.binarization.result, widest_for=signs)
    return conv if widest is None else dataclasses.replace(conv, binarization=widest)


class _Rewriter:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        # Layers that read the same signs share them.
        self._signs: dict[object, ir.Value] = {}
        # A layer may binarize what a layer before it gave, and that has moved behind its scale.
        self._moved: dict[ir.Value, ir.Value] = {}

    def rewrite(self, conv: BinaryConv) -> None:
        """Rewrite one layer."""
        node, facts = conv.node, conv.facts
        mark_layer(node, facts.name)
        node.replace_input_with(0, self._sign_of(conv))
        is_transposed = facts.kind == "linear" and not node.attributes.get_int("transB")
        weight = conv.weight.T if is_transposed else conv.weight
        signs = add_initializer(self._graph, f"{facts.name}_signs", np.ascontiguousarray(weight))
        node.replace_input_with(1, signs)
        if facts.kind == "conv":
            node.attributes.pop("auto_pad", None)
            pads = facts.pads if facts.pad_value == 0 else (0, 0, 0, 0)
            # A one-dimensional convolution keeps its two amounts: left and right.
            own = (pads[1], pads[3]) if conv.weight.ndim == 3 else pads
            node.attributes["pads"] = ir.AttrInt64s("pads", list(own))
        self._finish(conv)

    def _sign_of(self, conv: BinaryConv) -> ir.Value:
        binarization, facts = conv.binarization, conv.facts
        source = self._moved.get(binarization.source, binarization.source)
        threshold = _smallest_high(binarization)
        padded = facts.pads if facts.pad_value != 0 else None
        key = (source, threshold, conv.layout, padded, facts.pad_value)
        if key in self._signs:
            return self._signs[key]
        value = source
        added: list[ir.Node] = []
        if threshold != 0:
            zero_point = add_initializer(
                self._graph, f"{source.name}_threshold", np.full((), -threshold, np.float32)
            )
            added.append(
                new_node("Add", [value, zero_point], f"{facts.name}_shifted", shape_of(value))
            )
            value = added[-1].outputs[0]
        for mover in conv.layout:
            others = list(mover.inputs[1:])
            name = f"{mover.name}_before_sign"
            copy = ir.Node(
                "", mover.op_type, [value, *others], list(mover.attributes.values()), name=name
            )
            output = copy.outputs[0]
            output.name, output.shape = name, mover.outputs[0].shape
            output.dtype = ir.DataType.FLOAT
            mark_layout(copy)
            added.append(copy)
            value = copy.outputs[0]
        if padded is not None:
            pad = new_pad(self._graph, value, padded, facts.pad_value, f"{facts.name}_padded")
            mark_layout(pad)
            added.append(pad)
            value = pad.outputs[0]
        added += new_sign(self._graph, value)
        self._graph.insert_before(conv.node, added)
        self._signs[key] = added[-1].outputs[0]
        return self._signs[key]

    def _finish(self, conv: BinaryConv) -> None:
        """Multiply and add behind the layer what its signs and weights no longer hold."""
        node, facts = conv.node, conv.facts
        output, value = node.outputs[0], node.outputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        steps: list[tuple[str, str, ir.Value]] = []
        if (conv.magnitude != 1).any():
            steps.append(("Mul", "scale", self._per_channel(conv, "scale", conv.magnitude)))
        if conv.offset.any():
            steps.append(("Add", "offset", self._per_channel(conv, "offset", conv.offset)))
        if conv.factor is not None:
            steps.append(("Mul", "factor", self._moved.get(conv.factor, conv.factor)))
        if steps and bias is not None:
            # The scale belongs to the product alone: the bias moves behind it.
            node.resize_inputs(2)
            assert bias.const_value is not None
            array = bias.const_value.numpy()
            steps.append(("Add", "bias", self._per_channel(conv, "bias", array.reshape(-1))))
        if not steps:
            return
        added: list[ir.Node] = []
        for operator, what, operand in steps:
            name = f"{facts.name}_by_{what}"
            added.append(new_node(operator, [value, operand], name, facts.output_shape))
            value = added[-1].outputs[0]
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        added[0].replace_input_with(0, output)
        self._graph.insert_after(node, added)
        self._moved[output] = value

    def _per_channel(self, conv: BinaryConv, what: str, array: npt.NDArray[np.generic]) -> ir.Value:
        axis, shape = conv.facts.channel_axis, [1] * len(conv.facts.output_shape)
        shape[axis] = len(conv.weight)
        whole = np.broadcast_to(array.astype(np.float32), (len(conv.weight),))
        return add_initializer(
            self._graph, f"{conv.facts.name}_{what}", whole.reshape(shape).copy()
        )


def _smallest_high(binarization: Binarization) -> np.float32:
    """The smallest number that becomes the higher level: x ≥ it is the binarization."""
    threshold = np.float32(binarization.threshold)
    if binarization.at_threshold != binarization.low:
        return threshold
    if threshold == 0:
        # Engines take denormal numbers for 0, so the next number above 0 is the first normal one.
        return np.finfo(np.float32).tiny
    return np.float32(np.nextafter(threshold, np.float32(np.inf)))
