"""Take apart convolutions that are strided and dilated at once, which TensorFlow has not.

Requires: canonical binarization.
Ensures: no two-dimensional Conv, binary or float, has both a stride and a dilation. The
same numbers are computed.

Along one axis, output o reads the places o·s + t·d − p of its input. Where s divides d they
all have the same remainder by s, so the convolution sees only every s-th number: those are
picked first, and the rest is stride 1 and dilation d / s, at no cost. Elsewhere the
convolution runs with stride 1 and every s-th of its outputs is kept.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from bibench_deploy.graph.facts import (
    BinaryConv,
    Window,
    binary_convs,
    shape_of,
    window_of,
)
from bibench_deploy.lowering.layer_input import before_sign, feed, keep_part, new_slice


def strided_dilation(model: ir.Model) -> None:
    """Apply the pass to `model`, in place."""
    binary = {conv.node: conv for conv in binary_convs(model)}
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "" and len(shape_of(node.outputs[0])) == 4:
            _take_apart(model.graph, node, binary.get(node))
    RemoveUnusedNodesPass()(model)


def _take_apart(graph: ir.Graph, node: ir.Node, conv: BinaryConv | None) -> None:
    window = window_of(node)
    # A single tap has no distance to a next one.
    dilations = tuple(
        1 if kernel == 1 else dilation
        for kernel, dilation in zip(window.kernel, window.dilations, strict=True)
    )
    window = replace(window, dilations=(dilations[0], dilations[1]))
    if not _is_both(window):
        _write(node, window)
        return
    picked: dict[int, slice] = {}
    for axis in (0, 1):
        found = _phase(node, window, axis)
        if found is not None:
            picked[2 + axis], window = found
    if picked:
        source = node.inputs[0] if conv is None else before_sign(conv)
        assert source is not None
        feed(graph, node, conv, [new_slice(graph, source, picked, f"{node.name}_phase")])
    kept: dict[int, slice] = {}
    if _is_both(window):
        kept = {
            2 + axis: slice(0, None, window.strides[axis])
            for axis in (0, 1)
            if window.strides[axis] > 1
        }
        window = replace(window, strides=(1, 1))
    _write(node, window)
    if kept:
        _keep(graph, node, window, kept)


def _is_both(window: Window) -> bool:
    return max(window.strides) > 1 and max(window.dilations) > 1


def _phase(node: ir.Node, window: Window, axis: int) -> tuple[slice, Window] | None:
    """The places that one axis reads, and the window on them alone; None where s ∤ d."""
    source, stride, dilation = node.inputs[0], window.strides[axis], window.dilations[axis]
    assert source is not None
    size, outputs = shape_of(source)[2 + axis], shape_of(node.outputs[0])[2 + axis]
    if stride == 1 or dilation == 1 or dilation % stride:
        return None
    pad = window.pads[axis]
    near = -(-pad // stride)
    start = near * stride - pad
    reach = outputs + (window.kernel[axis] - 1) * (dilation // stride)
    picked = slice(start, min(size, start + max(reach - near, 0) * stride), stride)
    count = len(range(*picked.indices(size)))
    if count == 0:
        return None  # it reads nothing but padding
    strides, dilations, pads = list(window.strides), list(window.dilations), list(window.pads)
    strides[axis], dilations[axis] = 1, dilation // stride
    pads[axis], pads[axis + 2] = near, max(reach - near - count, 0)
    return picked, Window(
        window.kernel,
        (strides[0], strides[1]),
        (pads[0], pads[1], pads[2], pads[3]),
        (dilations[0], dilations[1]),
    )


def _write(node: ir.Node, window: Window) -> None:
    node.attributes.pop("auto_pad", None)
    for name in ("strides", "pads", "dilations"):
        node.attributes[name] = ir.AttrInt64s(name, list(getattr(window, name)))


def _keep(graph: ir.Graph, node: ir.Node, window: Window, kept: dict[int, slice]) -> None:
    """Let a layer run with stride 1 and keep every s-th output, behind its batch norm."""
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None
    sizes, outputs = shape_of(source), shape_of(output)
    whole = []
    for axis in (0, 1):
        reach = (window.kernel[axis] - 1) * window.dilations[axis]
        padded = sizes[2 + axis] + window.pads[axis] + window.pads[axis + 2]
        whole.append(padded - reach)
    for axis, part in kept.items():
        # Not one output more than there were.
        kept[axis] = slice(0, (outputs[axis] - 1) * part.step + 1, part.step)
    keep_part(graph, node, (whole[0], whole[1]), kept)
