"""Cut off the taps of a kernel that never read anything but padding.

On a map of 1×1, a 3×3 kernel with padding 1 is its middle tap.

Requires: canonical binarization.
Ensures: no outer row or column of a two-dimensional Conv's kernel, binary or float, reads
only zero padding; the padding shrinks with it. The same numbers are computed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.initializer import add_initializer
from bibench_deploy.lowering.layer_input import before_sign, feed, new_slice


def trim_kernels(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    binary = {conv.node: conv for conv in binary_convs(model)}
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "" and len(shape_of(node.outputs[0])) == 4:
            _trim(model.graph, node, binary.get(node))
    RemoveUnusedNodesPass()(model)


def _trim(graph: ir.Graph, node: ir.Node, conv: BinaryConv | None) -> None:
    weight = constant_of(node.inputs[1])
    window, source = window_of(node), node.inputs[0]
    assert source is not None
    if weight is None or not any(window.pads):
        return
    pads = list(window.pads)
    taps: list[slice] = []
    cut: dict[int, slice] = {}
    for axis in (0, 1):
        size, outputs = shape_of(source)[2 + axis], shape_of(node.outputs[0])[2 + axis]
        stride, dilation, near = window.strides[axis], window.dilations[axis], pads[axis]
        starts = np.arange(outputs) * stride - near
        places = starts + np.arange(window.kernel[axis])[:, None] * dilation
        reading = np.flatnonzero(((places >= 0) & (places < size)).any(axis=1))
        if len(reading) in (0, window.kernel[axis]):
            taps.append(slice(None))  # a kernel that reads nothing keeps its form
            continue
        first, last = int(reading[0]), int(reading[-1])
        taps.append(slice(first, last + 1))
        if taps[-1] == slice(0, window.kernel[axis]):
            continue
        begin, end = int(places[first, 0]), int(places[last, -1]) + 1
        pads[axis], pads[axis + 2] = max(-begin, 0), max(end - size, 0)
        # What is left over at the end would give outputs of its own.
        if begin > 0 or size - end >= stride:
            cut[2 + axis] = slice(max(begin, 0), min(end, size))
    trimmed = weight[:, :, taps[0], taps[1]]
    if trimmed.shape == weight.shape or not trimmed.any():
        return  # zeros alone would be taken for a float layer
    if cut:
        whole = source if conv is None else before_sign(conv)
        feed(graph, node, conv, [new_slice(graph, whole, cut, f"{node.name}_cut")])
    array = np.ascontiguousarray(trimmed)
    node.replace_input_with(1, add_initializer(graph, f"{node.name}_trimmed", array))
    node.attributes.pop("auto_pad", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(trimmed.shape[2:]))
