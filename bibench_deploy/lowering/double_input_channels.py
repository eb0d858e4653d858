"""Write zeros, which a binary layer cannot hold, as the half sum of +1 and −1.

Requires: canonical binarization; scales and batch norm folded behind each layer.
Ensures: no binary layer has a zero weight, and those that were asked for have no zero
padding. They compute the same numbers, to the bit: sums of ±1 are whole numbers, and what
doubles them is taken back by a power of two, in the batch norm where one follows.

  - Zero padding: the map is padded with +1 and, once more, with −1; both are stacked as
    channels and get the same weights. Numbers count twice, and the paddings cancel.
  - Zero weights: the tensor is stacked with itself; a zero weight is +1 in one half and −1
    in the other. Where both come together, four copies do both.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import (
    BinaryConv,
    binary_convs,
    only_reader,
    shape_of,
    window_of,
)
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.layer_input import before_sign, feed, new_node, new_pad

_Array = npt.NDArray[np.float32]


def double_input_channels(model: ir.Model, padded: Collection[ir.Node] = ()) -> None:
    """Apply the pass to `model`, in place.

    Args:
        model: the model.
        padded: the binary convolutions whose zero padding the engine cannot hold.
    """
    for conv in binary_convs(model):
        # A channel of nothing but zeros counts as +1 of magnitude 0: here it is zeros.
        magnitude = conv.magnitude.reshape(-1, *(1,) * (conv.weight.ndim - 1))
        weight = np.where(magnitude == 0, np.float32(0), conv.weight)
        is_padded = conv.node in padded and any(window_of(conv.node).pads)
        if is_padded or not weight.all():
            _double(model.graph, conv, weight, is_padded)
    RemoveUnusedNodesPass()(model)


def _double(graph: ir.Graph, conv: BinaryConv, weight: _Array, is_padded: bool) -> None:
    node, source = conv.node, before_sign(conv)
    copies: list[ir.Value] = [source]
    added: list[ir.Node] = []
    if is_padded:
        pads = _pads_read(conv)
        for name, filler in (("high", 1.0), ("low", -1.0)):
            added.append(new_pad(graph, source, pads, filler, f"{node.name}_padded_{name}"))
        copies = [pad.outputs[0] for pad in added]
        node.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
    weights = [weight] * len(copies)
    if not weight.all():
        copies = copies * 2
        high, low = (np.where(weight == 0, np.float32(one), weight) for one in (1, -1))
        weights = [high] * len(weights) + [low] * len(weights)
    shape = list(shape_of(copies[0]))
    shape[1] *= len(copies)
    added.append(new_node("Concat", copies, f"{node.name}_stacked", shape, {"axis": 1}))
    feed(graph, node, conv, added)
    stacked: _Array = np.concatenate(weights, axis=1)
    is_transposed = weight.ndim == 2 and not node.attributes.get_int("transB")
    array = np.ascontiguousarray(stacked.T if is_transposed else stacked)
    node.replace_input_with(1, add_initializer(graph, f"{node.name}_stacked_signs", array))
    _take_back(graph, node, len(copies))


def _pads_read(conv: BinaryConv) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the padding as far as the window reads it."""
    window, facts = window_of(conv.node), conv.facts
    far = []
    for axis in (0, 1):
        steps = (facts.output_shape[2 + axis] - 1) * window.strides[axis]
        reach = steps + (window.kernel[axis] - 1) * window.dilations[axis] + 1
        far.append(max(reach - window.pads[axis] - facts.input_shape[2 + axis], 0))
    return window.pads[0], window.pads[1], far[0], far[1]


def _take_back(graph: ir.Graph, node: ir.Node, times: int) -> None:
    """Divide what a layer gives by a power of two."""
    reader = only_reader(node.outputs[0])
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        node.replace_input_with(2, _scaled(graph, bias, times, f"{node.name}_bias"))
    if reader is not None and reader.op_type == "BatchNormalization":
        gamma, mean = constant_of(reader.inputs[1]), constant_of(reader.inputs[3])
        if gamma is not None and mean is not None:
            name = f"{node.name}_stacked"
            reader.replace_input_with(1, _scaled(graph, gamma, 1 / times, f"{name}_gamma"))
            reader.replace_input_with(3, _scaled(graph, mean, times, f"{name}_mean"))
            return
    output = node.outputs[0]
    factor = add_initializer(graph, f"{node.name}_share", np.full((), 1 / times, np.float32))
    share = new_node("Mul", [output, factor], f"{node.name}_unstacked", shape_of(output))
    output.replace_all_uses_with(share.outputs[0], replace_graph_outputs=True)
    share.replace_input_with(0, output)
    graph.insert_after(node, share)


def _scaled(graph: ir.Graph, array: npt.NDArray[np.generic], factor: float, name: str) -> ir.Value:
    return add_initializer(graph, name, array.astype(np.float32) * np.float32(factor))
