"""Build a Keras model in Larq's own layers from a lowered graph.

Runs in the conversion process, which alone imports TensorFlow. The model reads and gives
NHWC tensors and loads with `larq` installed, nothing of bibench; `larq.models.summary`
counts each binary layer as 1-bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of, window_of
from bibench_deploy.targets.lce.channel_order import is_sequence
from bibench_deploy.targets.lce.float_operators import OPERATORS
from bibench_deploy.targets.lce.keras_graph import (
    Array,
    KerasGraph,
    KerasTensor,
    optional,
    required,
)
from bibench_deploy.targets.lce.padding import LayerPadding, plan_padding


class KerasBuilder(KerasGraph):
    """Translates one lowered graph; `build()` gives the Keras model.

    Binary layers and windows are translated here, everything else in `float_operators`.

    Args:
        model: the lowered graph.
        turns_input: whether a rotated network turns its input itself; else the caller does.
    """

    def __init__(self, model: ir.Model, *, turns_input: bool = True) -> None:
        import larq

        self._larq = larq
        self._graph = model.graph
        self._turns_input = turns_input
        self._plan = plan_padding(model)
        self._binary: dict[ir.Node, BinaryConv] = {conv.node: conv for conv in binary_convs(model)}
        super().__init__(self._plan.is_rotated, frozenset(self._binary))
        # Larq's own quantizers take the sign, so the nodes that do it are left out.
        self._signs = {node for conv in self._binary.values() for node in conv.binarization.nodes}

    def build(self) -> Any:
        """The Keras model, weights included."""
        source = self._graph.inputs[0]
        shape = shape_of(source)
        has_channels_last = len(shape) == 4 or is_sequence(source)
        size = (*shape[2:], shape[1]) if has_channels_last else shape[1:]
        entry = self.layers.Input(size, name=self.name(source.name))
        is_turned = len(shape) == 4 and self._turns_input
        self.tensors[source] = self.turned(entry) if is_turned else entry
        for node in self._graph:
            if node not in self._signs:
                self._translate(node)
        results = []
        for value in self._graph.outputs:
            tensor = self.tensors[value]
            results.append(self.turned(tensor) if len(shape_of(value)) == 4 else tensor)
        outputs = results if len(results) > 1 else results[0]
        # Each tensor in the .tflite file is named after it first, and names are cut at 50.
        return self.tf.keras.Model(entry, outputs, name="net")

    def _translate(self, node: ir.Node) -> None:
        if node in self._binary:
            is_conv = node.op_type == "Conv"
            translate = self._binary_conv if is_conv else self._binary_linear
        elif node.op_type in WINDOWS:
            translate = WINDOWS[node.op_type].__get__(self)
        else:
            translate = partial(OPERATORS[node.op_type].translate, self)
        results = translate(node)
        listed = results if isinstance(results, list) else [results]
        self.tensors.update(zip(node.outputs, listed, strict=False))

    # Convolutions

    def _binary_conv(self, node: ir.Node) -> KerasTensor:
        conv = self._binary[node]
        pad = self._plan.layers[node].pad
        source = conv.binarization.source if pad is None else pad.inputs[0]
        assert source is not None
        tensor, strides, mode = self._padded(node, self.tensors[source])
        layer = self._larq.layers.QuantConv2D(
            conv.weight.shape[0],
            conv.weight.shape[2:],
            strides=strides,
            padding=mode,
            pad_values=0.0 if pad is None else 1.0,
            dilation_rate=conv.facts.dilations,
            **self._quantizers(),
            use_bias=False,
            name=self.name(node.name),
        )
        return self.apply(layer, tensor, [self._kernel(conv.weight)])

    def _binary_linear(self, node: ir.Node) -> KerasTensor:
        """A binary fully connected layer as a 1×1 convolution: LCE keeps QuantDense in float."""
        conv = self._binary[node]
        source = conv.binarization.source
        outputs, inputs = conv.weight.shape
        weight = self.in_flat_order(source, conv.weight)
        cell = self.layers.Reshape((1, 1, inputs))(self.tensors[source])
        layer = self._larq.layers.QuantConv2D(
            outputs, 1, **self._quantizers(), use_bias=False, name=self.name(node.name)
        )
        cell = self.apply(layer, cell, [weight.T[None, None]])
        return self.layers.Reshape((outputs,))(cell)

    @staticmethod
    def _quantizers() -> dict[str, str]:
        return {
            "input_quantizer": "ste_sign",
            "kernel_quantizer": "ste_sign",
            "kernel_constraint": "weight_clip",
        }

    def _conv(self, node: ir.Node) -> KerasTensor:
        weight, bias = required(node, 1), optional(node, 2)
        group = node.attributes.get_int("group", 1)
        tensor, strides, mode = self._padded(node, self.input(node))
        options = {
            "strides": strides,
            "padding": mode,
            "dilation_rate": window_of(node).dilations,
            "use_bias": bias is not None,
            "name": self.name(node.name),
        }
        kernel = self._kernel(weight)
        if group > 1 and weight.shape[1] == 1:
            multiplier = weight.shape[0] // group
            options["depth_multiplier"] = multiplier
            layer = self.layers.DepthwiseConv2D(weight.shape[2:], **options)
            kernel = kernel.reshape(*kernel.shape[:2], group, multiplier)
        else:
            options["groups"] = group
            layer = self.layers.Conv2D(weight.shape[0], weight.shape[2:], **options)
        return self.apply(layer, tensor, [kernel] if bias is None else [kernel, bias])

    def _kernel(self, weight: Array) -> Array:
        """[O, I, kH, kW] as TensorFlow's [kH, kW, I, O], turned where the network is."""
        turned = weight[:, :, ::-1, ::-1] if self.is_rotated else weight
        return np.ascontiguousarray(turned.transpose(2, 3, 1, 0))

    def _padded(
        self, node: ir.Node, tensor: KerasTensor, filler: float = 0.0
    ) -> tuple[KerasTensor, tuple[int, int], str]:
        """Pad and cut before a window; gives the tensor, the strides and the padding left."""
        padding, window = self._plan.layers[node], window_of(node)
        rows, columns = padding.cut(window)
        if {(rows.start, rows.step), (columns.start, columns.step)} != {(0, 1)}:
            begin, steps = [0, rows.start, columns.start, 0], [1, rows.step, columns.step, 1]
            # Every axis to its end. Names go into the file: subscripts have long ones.
            tensor = self.tf.strided_slice(tensor, begin, [0] * 4, steps, end_mask=15)
        # A strided slice costs less than a strided 1×1 window.
        is_picked = (rows.step, columns.step) != (1, 1)
        strides = (1, 1) if is_picked else window.strides
        if padding.mode == "explicit":
            tensor = self._with_pad(tensor, padding, filler)
        return tensor, strides, "same" if padding.mode == "same" else "valid"

    def _with_pad(self, tensor: KerasTensor, padding: LayerPadding, filler: float) -> KerasTensor:
        (top, bottom), (left, right) = padding.amounts
        sides = ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
        if filler == 0:
            return self.layers.ZeroPadding2D(sides)(tensor)
        return self.tf.pad(tensor, [(0, 0), *sides, (0, 0)], constant_values=filler)

    # Pooling

    def _max_pool(self, node: ir.Node) -> KerasTensor:
        tensor, strides, mode = self._padded(node, self.input(node), _LOWEST)
        if window_of(node).dilations != (1, 1):
            return self._slide(node, tensor, strides, self.tf.maximum)
        layer = self.layers.MaxPooling2D
        return layer(window_of(node).kernel, strides, mode, name=self.name(node.name))(tensor)

    def _average_pool(self, node: ir.Node) -> KerasTensor:
        tensor, strides, mode = self._padded(node, self.input(node))
        window = window_of(node)
        if window.dilations == (1, 1):
            layer = self.layers.AveragePooling2D
            mean = layer(window.kernel, strides, mode, name=self.name(node.name))(tensor)
        else:
            mean = self._slide(node, tensor, strides, self.tf.add) * (1 / prod(window.kernel))
        if self._plan.layers[node].mode != "explicit":
            return mean  # TensorFlow's own SAME leaves padding out of the count
        shares = _counted_shares(node)
        if (shares == 1).all():
            return mean
        turned = shares[::-1, ::-1] if self.is_rotated else shares
        return mean * self.tf.constant(np.ascontiguousarray(turned)[None, :, :, None])

    def _slide(
        self,
        node: ir.Node,
        tensor: KerasTensor,
        strides: tuple[int, int],
        combine: Callable[[KerasTensor, KerasTensor], KerasTensor],
    ) -> KerasTensor:
        """A dilated pooling, which TensorFlow Lite has not: rows, then columns, combined."""
        window = window_of(node)
        for axis in (0, 1):
            step, distance = strides[axis], window.dilations[axis]
            length = (shape_of(node.outputs[0])[2 + axis] - 1) * step + 1
            taps = []
            for tap in range(window.kernel[axis]):
                part = [slice(None)] * 4
                part[1 + axis] = slice(tap * distance, tap * distance + length, step)
                taps.append(tensor[tuple(part)])
            tensor = reduce(combine, taps)
        return tensor


# What a max pooling is padded with: no number is smaller.
_LOWEST = float(np.finfo(np.float32).min)


def _counted_shares(node: ir.Node) -> npt.NDArray[np.float32]:
    """How much more each mean of a padded average pooling weighs than the mean of its window.

    Returns:
        The window's size by the number of places that count, [H, W] of the result: those of
        the map, and with `count_include_pad` those of the padding too.
    """
    window, source = window_of(node), node.inputs[0]
    assert source is not None
    with_pads = bool(node.attributes.get_int("count_include_pad", 0))
    shares = []
    for axis in (0, 1):
        kernel, size = window.kernel[axis], shape_of(source)[2 + axis]
        near, far = window.pads[axis], window.pads[axis + 2]
        starts = np.arange(shape_of(node.outputs[0])[2 + axis]) * window.strides[axis] - near
        places = starts[:, None] + np.arange(kernel) * window.dilations[axis]
        first, end = (-near, size + far) if with_pads else (0, size)
        counts = ((places >= first) & (places < end)).sum(axis=1)
        shares.append(kernel / np.maximum(counts, 1))
    height, width = shares
    product: npt.NDArray[np.float32] = (height[:, None] * width).astype(np.float32)
    return product


# Operators whose window slides over a map: the plan of padding decides what they become.
WINDOWS: dict[str, Callable[[KerasBuilder, ir.Node], KerasTensor]] = {
    "AveragePool": KerasBuilder._average_pool,
    "Conv": KerasBuilder._conv,
    "MaxPool": KerasBuilder._max_pool,
}
