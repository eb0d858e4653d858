"""Transposed convolutions, in float: each number of the map adds its kernel to the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator
from bibench_deploy.targets.lce.keras_graph import (
    Array,
    KerasGraph,
    KerasTensor,
    optional,
    required,
)


@dataclass(frozen=True)
class _Axis:
    """Which part of the whole result, whose every kernel is complete, ONNX wants.

    Attributes:
        size: of the map.
        kernel: its reach, dilation included.
        stride: distance of kernels in the result.
        start: the first place that is wanted; negative where zeros come before it.
        wanted: how many places.
    """

    size: int
    kernel: int
    stride: int
    start: int
    wanted: int

    @property
    def is_same(self) -> bool:
        """Whether TensorFlow's SAME gives exactly that part."""
        cut = max(self.kernel - self.stride, 0)
        return self.wanted == self.size * self.stride and self.start == cut // 2

    @property
    def whole(self) -> int:
        """How many places TensorFlow's VALID gives; zeros fill the gap behind small kernels."""
        return (self.size - 1) * self.stride + max(self.kernel, self.stride)


def _transposed_conv(graph: KerasGraph, node: ir.Node) -> KerasTensor:
    kernel, bias = _kernel(node), optional(node, 2)
    if graph.is_rotated:
        kernel = kernel[:, :, ::-1, ::-1]
    axes = [_axis(node, axis, graph.is_rotated) for axis in (0, 1)]
    is_same = all(axis.is_same for axis in axes)
    is_complete = is_same or all((axis.start, axis.wanted) == (0, axis.whole) for axis in axes)
    layer = graph.layers.Conv2DTranspose(
        kernel.shape[1],
        kernel.shape[2:],
        strides=[axis.stride for axis in axes],
        padding="same" if is_same else "valid",
        use_bias=bias is not None and is_complete,
        name=graph.name(node.name),
    )
    weights = [np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))]
    if is_complete:
        weights += [] if bias is None else [bias]
        return graph.apply(layer, graph.input(node), weights)
    result = graph.apply(layer, graph.input(node), weights)
    pads = [(0, 0), *(_missing(axis) for axis in axes), (0, 0)]
    if any(near or far for near, far in pads):
        result = graph.tf.pad(result, pads)
    starts = [max(axis.start, 0) for axis in axes]
    rows, columns = (
        slice(start, start + axis.wanted) for start, axis in zip(starts, axes, strict=True)
    )
    result = result[:, rows, columns, :]
    # Behind the cut, since zeros that were added have the bias too.
    return result if bias is None else result + graph.tf.constant(bias)


def _missing(axis: _Axis) -> tuple[int, int]:
    """How many zeros to add before and behind what VALID gives."""
    return max(-axis.start, 0), max(axis.start + axis.wanted - axis.whole, 0)


def _kernel(node: ir.Node) -> Array:
    """[I, O, kH, kW] of one group and no dilation: both are a matter of zeros in between."""
    weight = required(node, 1)
    group = node.attributes.get_int("group", 1)
    dilations = list(node.attributes.get_ints("dilations", ()) or (1, 1))
    inputs, outputs, *kernel = weight.shape
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    whole = np.zeros((inputs, outputs * group, *reach), np.float32)
    each = inputs // group
    for index in range(group):
        rows = slice(index * each, (index + 1) * each)
        columns = slice(index * outputs, (index + 1) * outputs)
        whole[rows, columns, :: dilations[0], :: dilations[1]] = weight[rows]
    return whole


def _axis(node: ir.Node, axis: int, is_rotated: bool) -> _Axis:
    source = node.inputs[0]
    assert source is not None
    size, wanted = shape_of(source)[2 + axis], shape_of(node.outputs[0])[2 + axis]
    kernel = _kernel(node).shape[2 + axis]
    stride = (node.attributes.get_ints("strides", ()) or (1, 1))[axis]
    whole = (size - 1) * stride + kernel
    start = _start(node, axis, whole - wanted)
    # Counted from the other end where the network is turned.
    return _Axis(size, kernel, stride, whole - wanted - start if is_rotated else start, wanted)


def _start(node: ir.Node, axis: int, spare: int) -> int:
    """How many places are cut off in front."""
    extra = (node.attributes.get_ints("output_padding", ()) or (0, 0))[axis]
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad == "NOTSET" and "output_shape" not in node.attributes:
        return (node.attributes.get_ints("pads", ()) or (0, 0, 0, 0))[axis]
    if auto_pad == "VALID":
        return 0
    total = max(spare + extra, 0)
    return total // 2 if auto_pad == "SAME_UPPER" else total - total // 2


def _check_transposed_conv(node: ir.Node) -> str | None:
    if len(shape_of(node.outputs[0])) != 4:
        return "a transposed convolution of a volume; TensorFlow Lite has it for maps"
    return None


OPERATORS = {
    "ConvTranspose": FloatOperator(_transposed_conv, _check_transposed_conv, parameters=(1, 2))
}
