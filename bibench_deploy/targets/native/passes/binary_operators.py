"""Write binary layers as the library's operators, with all that can be done in the same pass.

Requires: canonical binarization; constants per channel folded behind each layer.
Ensures: every binary layer is a `BinaryConv` that reads packed signs. Where the signs of a layer's
own output are all that the next one needs, they come packed from it, and no number is written.
Float tensors keep their layout: Transposes stand between them and the operators.

What follows a layer becomes a part of it in this order, as far as nothing else reads what is in
between: constants per channel, the addition of a shortcut, a PReLU, constants per channel, a
clip. A sign is taken from what comes out of it, of from that plus one constant per channel.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.fold_channel_affine import channel_step
from bibench_deploy.lowering.layer_input import before_sign
from bibench_deploy.lowering.sign_places import LAYOUT
from bibench_deploy.targets.native.operators import (
    BINARIZE,
    BINARY_CONV,
    SIGNS_OF,
    own_node,
    pack_signs,
)

_Vector = npt.NDArray[np.float64]
_Pads = tuple[int, int, int, int]

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def binary_operators(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    rewriter = _Rewriter(model)
    rewriter.run()
    RemoveUnusedNodesPass()(model)
    model.graph.sort()


@dataclass(frozen=True)
class LayerInput:
    """What a binary layer takes the signs of, and how it pads them itself.

    Attributes:
        source: the tensor, in the graph's own layout.
        pads: (top, left, bottom, right).
        pad_value: what padding holds.
    """

    source: ir.Value
    pads: _Pads
    pad_value: int


def layer_input(conv: BinaryConv) -> LayerInput:
    """What a layer in canonical form reads: behind a Pad by ±1, the tensor in front of it."""
    source, facts = before_sign(conv), conv.facts
    pad = source.producer()
    if pad is None or pad.op_type != "Pad" or LAYOUT not in pad.metadata_props or any(facts.pads):
        return LayerInput(source, facts.pads, int(facts.pad_value))
    amounts, filler = constant_of(pad.inputs[1]), constant_of(pad.inputs[2])
    assert amounts is not None
    assert filler is not None
    assert pad.inputs[0] is not None
    top, left, bottom, right = (int(amounts[index]) for index in (2, 3, 6, 7))
    return LayerInput(pad.inputs[0], (top, left, bottom, right), int(filler.item()))


@dataclass
class _Fused:
    """A binary layer and what becomes a part of it.

    Attributes:
        end: the tensor that it gives, in the graph's own layout.
        signed: the tensor whose signs it gives; None for none.
        nodes: what is replaced, in order.
    """

    scale: _Vector
    bias: _Vector
    end: ir.Value
    residual: ir.Value | None = None
    slope: _Vector | None = None
    shift: _Vector | None = None
    clip: tuple[float, float] | None = None
    sign_offset: _Vector | None = None
    signed: ir.Value | None = None
    nodes: list[ir.Node] = field(default_factory=list)


class _Rewriter:
    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._convs = binary_convs(model)
        # The comparisons that begin a sign which nothing but binary layers read.
        self._compares: dict[ir.Value, list[ir.Node]] = defaultdict(list)
        layers = {conv.node for conv in self._convs}
        for conv in self._convs:
            compare, choice = conv.binarization.nodes
            is_only_read_here = all(use.node in layers for use in choice.outputs[0].uses())
            source = layer_input(conv).source
            if is_only_read_here and compare not in self._compares[source]:
                self._compares[source].append(compare)
        # An addition of two layers becomes a part of one of them.
        self._taken: set[ir.Node] = set()
        self._signs: dict[ir.Value, ir.Value] = {}
        self._maps: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        """Rewrite every layer."""
        fused = [self._fuse(conv) for conv in self._convs]
        inputs = [layer_input(conv) for conv in self._convs]
        # Signs that a layer gives are known before any layer is written that reads them.
        nodes = [self._layer(*each) for each in zip(self._convs, inputs, fused, strict=True)]
        for node, read in zip(nodes, inputs, strict=True):
            node.replace_input_with(0, self._signs_of(read.source))
        for node, layer in zip(nodes, fused, strict=True):
            if layer.residual is not None:
                node.replace_input_with(4, self._as_map(layer.residual))
        for node, layer in zip(nodes, fused, strict=True):
            self._give(node, layer)

    def _fuse(self, conv: BinaryConv) -> _Fused:
        """Follow a layer's output as far as what is done with it can be a part of the layer."""
        output = conv.node.outputs[0]
        channels = len(conv.weight)
        bias = constant_of(conv.node.inputs[2]) if len(conv.node.inputs) > 2 else None
        given = np.zeros(channels) if bias is None else bias.astype(np.float64).reshape(-1)
        layer = _Fused(
            conv.magnitude.astype(np.float64), np.broadcast_to(given, (channels,)).copy(), output
        )
        while self._absorb_next(layer, channels):
            pass
        return layer

    def _absorb_next(self, layer: _Fused, channels: int) -> bool:
        """Take up what reads the end of a layer; False where nothing more can be."""
        value = layer.end
        if value.is_graph_output() or layer.signed is not None:
            return False
        signed, offset, others = self._readers(value, channels)
        if any(node.graph is not self._graph for node in others):
            others = []  # a branch of an If reads it, so that it has to be there
        if signed is not None:
            layer.signed, layer.sign_offset = signed, offset
            # Between low < 0 and high ≥ 0 a clip changes no sign.
            clip = _clip_of(others[0], value) if len(others) == 1 and offset is None else None
            if clip is not None and layer.clip is None and clip[0] < 0 <= clip[1]:
                layer.clip = clip
                self._take(layer, others[0])
            return False
        if len(others) != 1 or layer.clip is not None or others[0] in self._taken:
            return False
        (node,) = others
        step = channel_step(node, value, channels)
        if step is not None and self._take_step(layer, *step):
            pass
        elif (other := _shortcut(node, value)) is not None and _takes_shortcut(layer):
            layer.residual = other
        elif (slope := _slope_of(node, value, channels)) is not None and layer.slope is None:
            if layer.shift is not None:
                return False
            layer.slope = slope
        elif (clip := _clip_of(node, value)) is not None:
            layer.clip = clip
        else:
            return False
        self._take(layer, node)
        return True

    def _take(self, layer: _Fused, node: ir.Node) -> None:
        self._taken.add(node)
        layer.nodes.append(node)
        layer.end = node.outputs[0]

    def _take_step(self, layer: _Fused, multiplier: _Vector, offset: _Vector) -> bool:
        if layer.residual is None and layer.slope is None:
            layer.scale = layer.scale * multiplier
            layer.bias = layer.bias * multiplier + offset
        elif (multiplier != 1).any():
            return False
        elif layer.slope is None:
            layer.bias = layer.bias + offset
        else:
            layer.shift = offset if layer.shift is None else layer.shift + offset
        return True

    def _readers(
        self, value: ir.Value, channels: int
    ) -> tuple[ir.Value | None, _Vector | None, list[ir.Node]]:
        """Which sign is taken of a tensor, with what is added before, and who else reads it."""
        compares = self._compares.get(value, [])
        others = [use.node for use in value.uses() if use.node not in compares]
        if compares:
            return value, None, others
        for node in others:
            step = channel_step(node, value, channels) if node.op_type == "Add" else None
            output = node.outputs[0]
            if step is None or output not in self._compares or output.is_graph_output():
                continue
            if all(use.node in self._compares[output] for use in output.uses()):
                return output, step[1], [other for other in others if other is not node]
        return None, None, others

    def _layer(self, conv: BinaryConv, read: LayerInput, layer: _Fused) -> ir.Node:
        """The node of a layer; its signs and its shortcut are connected later."""
        facts, weight = conv.facts, conv.weight
        name = facts.name
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        packed = add_initializer(
            self._graph, f"{name}_packed_weights", pack_signs(np.moveaxis(weight, 1, -1))
        )
        attributes: dict[str, int | float | tuple[int, ...]] = {
            "strides": facts.strides,
            "pads": read.pads,
            "dilations": facts.dilations,
            "group": facts.group,
            "input_channels": weight.shape[1] * facts.group,
            "pad_value": read.pad_value,
        }
        if layer.clip is not None:
            attributes["low"], attributes["high"] = layer.clip
        vectors = [
            None if vector is None else self._vector(f"{name}_{what}", vector)
            for what, vector in (
                ("scale", layer.scale),
                ("bias", layer.bias),
                ("slope", layer.slope),
                ("shift", layer.shift),
                ("sign_offset", layer.sign_offset),
            )
        ]
        # Something of the right kind stands where signs and shortcut are going to be.
        residual = packed if layer.residual is not None else None
        inputs = [packed, packed, *vectors[:2], residual, *vectors[2:]]
        node = own_node(BINARY_CONV, inputs, name, _nhwc(shape_of(layer.end)), attributes)
        node.metadata_props.update(conv.node.metadata_props)
        self._graph.insert_after(layer.nodes[-1] if layer.nodes else conv.node, node)
        if layer.signed is not None:
            self._signs[layer.signed] = node.outputs[SIGNS_OF[BINARY_CONV]]
        return node

    def _signs_of(self, value: ir.Value) -> ir.Value:
        if value not in self._signs:
            shape, name = _nchw(shape_of(value)), f"{value.name}_binarized"
            source = value
            if len(shape_of(value)) == 2:
                source = self._reshape(value, shape, f"{value.name}_places")
            node = own_node(BINARIZE, [source], name, _nhwc(shape), {})
            self._graph.append(node)
            self._signs[value] = node.outputs[SIGNS_OF[BINARIZE]]
        return self._signs[value]

    def _as_map(self, value: ir.Value) -> ir.Value:
        """A float tensor in the operators' own layout."""
        if value not in self._maps:
            name = f"{value.name}_nhwc"
            if len(shape_of(value)) == 2:
                self._maps[value] = self._reshape(value, _nhwc(shape_of(value)), name)
            else:
                self._maps[value] = self._transpose(value, _TO_NHWC, name)
        return self._maps[value]

    def _give(self, node: ir.Node, layer: _Fused) -> None:
        """Let the readers of a layer's end read the node's numbers."""
        numbers, end = node.outputs[0], layer.end
        if not end.uses() and not end.is_graph_output():
            return
        name, shape = f"{node.name}_given", shape_of(end)
        if len(shape) == 2:
            result = self._reshape(numbers, shape, name)
        else:
            result = self._transpose(numbers, _TO_NCHW, name)
        if end.is_graph_output():
            end.name, result.name = f"{end.name}_replaced", end.name
        end.replace_all_uses_with(result, replace_graph_outputs=True)

    def _vector(self, name: str, vector: _Vector) -> ir.Value:
        return add_initializer(self._graph, name, vector.astype(np.float32))

    def _reshape(self, value: ir.Value, shape: tuple[int, ...], name: str) -> ir.Value:
        target = add_initializer(self._graph, f"{name}_shape", np.array(shape, np.int64))
        return self._append(ir.node("Reshape", [value, target], name=name), shape)

    def _transpose(self, value: ir.Value, order: tuple[int, ...], name: str) -> ir.Value:
        shape = tuple(shape_of(value)[axis] for axis in order)
        node = ir.node("Transpose", [value], {"perm": list(order)}, name=name)
        return self._append(node, shape)

    def _append(self, node: ir.Node, shape: tuple[int, ...]) -> ir.Value:
        self._graph.append(node)
        output = node.outputs[0]
        output.name, output.shape, output.dtype = node.name, ir.Shape(shape), ir.DataType.FLOAT
        return output


def _nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape as that of a map; a row is one place."""
    return shape if len(shape) == 4 else (*shape, 1, 1)


def _nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    whole = _nchw(shape)
    return whole[0], whole[2], whole[3], whole[1]


def _takes_shortcut(layer: _Fused) -> bool:
    return layer.residual is None and layer.slope is None


def _shortcut(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """What an Add of two computed tensors of one shape adds to `value`."""
    if node.op_type != "Add" or node.domain != "":
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is None or other is value or constant_of(other) is not None:
        return None
    return other if shape_of(other) == shape_of(value) else None


def _slope_of(node: ir.Node, value: ir.Value, channels: int) -> _Vector | None:
    """What numbers below zero are multiplied by, per channel; None where it is no such thing."""
    if node.domain != "" or node.inputs[0] is not value:
        return None
    if node.op_type == "Relu":
        return np.zeros(channels)
    if node.op_type == "LeakyRelu":
        return np.full(channels, node.attributes.get_float("alpha", 0.01))
    if node.op_type != "PRelu":
        return None
    array, rank = constant_of(node.inputs[1]), len(shape_of(value))
    if array is None or array.size not in (1, channels):
        return None
    aligned = (1,) * (rank - array.ndim) + array.shape
    if array.size == channels != 1 and (len(aligned) != rank or aligned[1] != channels):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,)).copy()


def _clip_of(node: ir.Node, value: ir.Value) -> tuple[float, float] | None:
    """Lower and upper bound of a Clip of constants."""
    if node.op_type != "Clip" or node.domain != "" or node.inputs[0] is not value:
        return None
    low, high = -np.inf, np.inf
    bounds = [*node.inputs[1:], None, None][:2]
    arrays = [None if bound is None else constant_of(bound) for bound in bounds]
    if any(a is None for a, bound in zip(arrays, bounds, strict=True) if bound is not None):
        return None
    low = float(arrays[0].item()) if arrays[0] is not None else low
    high = float(arrays[1].item()) if arrays[1] is not None else high
    return (low, high) if low <= high else None
