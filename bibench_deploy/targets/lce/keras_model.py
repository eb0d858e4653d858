"""Build a Keras model in Larq's own layers from a lowered graph.

Runs in the conversion process, which alone imports TensorFlow. The model reads and gives
NHWC tensors and loads with `larq` installed, nothing of bibench; `larq.models.summary`
counts each binary layer as 1-bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of, window_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.padding import LayerPadding, plan_padding
from bibench_deploy.targets.lce.residency import to_nhwc

_Array = npt.NDArray[np.generic]
KerasTensor = Any


class KerasBuilder:
    """Translates one lowered graph; `build()` gives the Keras model."""

    def __init__(self, model: ir.Model) -> None:
        import larq
        import tensorflow as tf

        self._tf, self._larq, self._layers = tf, larq, tf.keras.layers
        self._graph = model.graph
        self._plan = plan_padding(model)
        self._binary: dict[ir.Node, BinaryConv] = {conv.node: conv for conv in binary_convs(model)}
        self._tensors: dict[ir.Value, KerasTensor] = {}
        # Channels, height and width that a flattened tensor came from, for its weights' order.
        self._flattened: dict[ir.Value, tuple[int, int, int]] = {}
        self._names: set[str] = set()
        # Larq's own quantizers take the sign, so the nodes that do it are left out.
        self._signs = {node for conv in self._binary.values() for node in conv.binarization.nodes}

    @property
    def is_rotated(self) -> bool:
        """Whether the model turns its input by 180°, so that PyTorch's padding fits."""
        return self._plan.is_rotated

    def build(self) -> Any:
        """The Keras model, weights included."""
        source = self._graph.inputs[0]
        shape = shape_of(source)
        size = (*shape[2:], shape[1]) if len(shape) == 4 else shape[1:]
        entry = self._layers.Input(size, name=self._name(source.name))
        self._tensors[source] = self._turned(entry) if len(shape) == 4 else entry
        for node in self._graph:
            if node not in self._signs:
                self._translate(node)
        results = []
        for value in self._graph.outputs:
            tensor = self._tensors[value]
            results.append(self._turned(tensor) if len(shape_of(value)) == 4 else tensor)
        return self._tf.keras.Model(entry, results if len(results) > 1 else results[0])

    def _turned(self, tensor: KerasTensor) -> KerasTensor:
        """Height and width reversed, where the network is rotated."""
        return self._tf.reverse(tensor, [1, 2]) if self._plan.is_rotated else tensor

    def _translate(self, node: ir.Node) -> None:
        if node in self._binary:
            is_conv = node.op_type == "Conv"
            translate = self._binary_conv if is_conv else self._binary_linear
        else:
            translate = TRANSLATIONS[node.op_type].__get__(self)
        self._tensors[node.outputs[0]] = translate(node)

    def _name(self, name: str | None) -> str:
        """A name that Keras accepts and that the model does not use yet."""
        plain = re.sub(r"[^A-Za-z0-9_.]", "_", name or "layer").lstrip("_.") or "layer"
        unique, number = plain, 1
        while unique in self._names:
            unique, number = f"{plain}_{number}", number + 1
        self._names.add(unique)
        return unique

    def _input(self, node: ir.Node, index: int = 0) -> KerasTensor:
        value = node.inputs[index]
        assert value is not None
        return self._tensors[value]

    def _apply(self, layer: Any, tensor: KerasTensor, weights: list[_Array]) -> KerasTensor:
        result = layer(tensor)
        layer.set_weights(weights)
        return result

    # Convolutions

    def _binary_conv(self, node: ir.Node) -> KerasTensor:
        conv = self._binary[node]
        tensor = self._tensors[conv.binarization.source]
        tensor, strides, mode = self._padded(node, tensor)
        layer = self._larq.layers.QuantConv2D(
            conv.weight.shape[0],
            conv.weight.shape[2:],
            strides=strides,
            padding=mode,
            pad_values=0.0,
            dilation_rate=conv.facts.dilations,
            **self._quantizers(),
            use_bias=False,
            name=self._name(node.name),
        )
        return self._apply(layer, tensor, [self._kernel(conv.weight)])

    def _binary_linear(self, node: ir.Node) -> KerasTensor:
        """A binary fully connected layer as a 1×1 convolution: LCE keeps QuantDense in float."""
        conv = self._binary[node]
        source = conv.binarization.source
        outputs, inputs = conv.weight.shape
        weight = self._in_flat_order(source, conv.weight)
        cell = self._layers.Reshape((1, 1, inputs))(self._tensors[source])
        layer = self._larq.layers.QuantConv2D(
            outputs, 1, **self._quantizers(), use_bias=False, name=self._name(node.name)
        )
        cell = self._apply(layer, cell, [weight.T[None, None]])
        return self._layers.Reshape((outputs,))(cell)

    @staticmethod
    def _quantizers() -> dict[str, str]:
        return {
            "input_quantizer": "ste_sign",
            "kernel_quantizer": "ste_sign",
            "kernel_constraint": "weight_clip",
        }

    def _conv(self, node: ir.Node) -> KerasTensor:
        weight, bias = _required(node, 1), constant_of(_optional(node, 2))
        group = node.attributes.get_int("group", 1)
        tensor, strides, mode = self._padded(node, self._input(node))
        options = {
            "strides": strides,
            "padding": mode,
            "dilation_rate": window_of(node).dilations,
            "use_bias": bias is not None,
            "name": self._name(node.name),
        }
        kernel = self._kernel(weight)
        if group == 1:
            layer = self._layers.Conv2D(weight.shape[0], weight.shape[2:], **options)
        else:
            layer = self._layers.DepthwiseConv2D(weight.shape[2:], **options)
            kernel = kernel.transpose(0, 1, 3, 2)
        return self._apply(layer, tensor, [kernel] if bias is None else [kernel, bias])

    def _kernel(self, weight: _Array) -> _Array:
        """[O, I, kH, kW] as TensorFlow's [kH, kW, I, O], turned where the network is."""
        turned = weight[:, :, ::-1, ::-1] if self._plan.is_rotated else weight
        return np.ascontiguousarray(turned.transpose(2, 3, 1, 0))

    def _padded(
        self, node: ir.Node, tensor: KerasTensor
    ) -> tuple[KerasTensor, tuple[int, int], str]:
        """Pad and cut before a window; gives the tensor, the strides and the padding left."""
        padding, window = self._plan.layers[node], window_of(node)
        (top, bottom), (left, right) = padding.amounts
        rows, columns = padding.cut(window)
        if {(rows.start, rows.step), (columns.start, columns.step)} != {(0, 1)}:
            tensor = tensor[:, rows, columns, :]
        # A strided slice costs less than a strided 1×1 window.
        is_picked = (rows.step, columns.step) != (1, 1)
        strides = (1, 1) if is_picked else window.strides
        if padding.mode == "explicit":
            sides = ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
            tensor = self._layers.ZeroPadding2D(sides)(tensor)
        return tensor, strides, _keras_mode(padding)

    # Pooling

    def _max_pool(self, node: ir.Node) -> KerasTensor:
        return self._pool(node, self._layers.MaxPooling2D)

    def _average_pool(self, node: ir.Node) -> KerasTensor:
        return self._pool(node, self._layers.AveragePooling2D)

    def _pool(self, node: ir.Node, layer: Any) -> KerasTensor:
        tensor, strides, mode = self._padded(node, self._input(node))
        return layer(window_of(node).kernel, strides, mode, name=self._name(node.name))(tensor)

    def _global_average_pool(self, node: ir.Node) -> KerasTensor:
        is_kept = len(shape_of(node.outputs[0])) == 4
        name = self._name(node.name)
        return self._layers.GlobalAveragePooling2D(keepdims=is_kept, name=name)(self._input(node))

    # Fully connected

    def _linear(self, node: ir.Node) -> KerasTensor:
        weight = _required(node, 1)
        rows = weight if node.attributes.get_int("transB") else weight.T
        source = node.inputs[0]
        assert source is not None
        bias = constant_of(_optional(node, 2))
        layer = self._layers.Dense(
            rows.shape[0], use_bias=bias is not None, name=self._name(node.name)
        )
        kernel = self._in_flat_order(source, rows).T
        weights = [kernel]
        if bias is not None:
            weights.append(np.broadcast_to(bias.reshape(-1), (rows.shape[0],)))
        return self._apply(layer, self._tensors[source], weights)

    def _in_flat_order(self, source: ir.Value, weight: _Array) -> _Array:
        """Columns of [O, C·H·W] in the order in which NHWC flattens the same map."""
        if source not in self._flattened:
            return weight
        return to_nhwc(weight, self._flattened[source], self._plan.is_rotated)

    def _flatten(self, node: ir.Node) -> KerasTensor:
        source = node.inputs[0]
        assert source is not None
        shape = shape_of(source)
        if len(shape) == 2:
            return self._tensors[source]
        if shape[2:] != (1, 1):
            self._flattened[node.outputs[0]] = (shape[1], shape[2], shape[3])
        return self._layers.Flatten(name=self._name(node.name))(self._tensors[source])

    # One number in, one number out

    def _batch_norm(self, node: ir.Node) -> KerasTensor:
        layer = self._layers.BatchNormalization(
            epsilon=node.attributes.get_float("epsilon", 1e-5), name=self._name(node.name)
        )
        return self._apply(layer, self._input(node), [_required(node, i) for i in (1, 2, 3, 4)])

    def _clip(self, node: ir.Node) -> KerasTensor:
        low, high = (constant_of(_optional(node, index)) for index in (1, 2))
        smallest = -np.inf if low is None else float(low.item())
        largest = np.inf if high is None else float(high.item())
        if smallest == 0:
            limit = None if np.isinf(largest) else largest
            return self._layers.ReLU(max_value=limit, name=self._name(node.name))(self._input(node))
        return self._tf.clip_by_value(self._input(node), smallest, largest)

    def _relu(self, node: ir.Node) -> KerasTensor:
        return self._layers.ReLU(name=self._name(node.name))(self._input(node))

    def _prelu(self, node: ir.Node) -> KerasTensor:
        slope = _required(node, 1)
        channels = self._input(node).shape[-1]
        is_map = len(shape_of(node.outputs[0])) == 4
        layer = self._layers.PReLU(
            shared_axes=[1, 2] if is_map else None, name=self._name(node.name)
        )
        alpha = np.broadcast_to(slope.reshape(-1), (channels,))
        return self._apply(layer, self._input(node), [alpha.reshape(1, 1, -1) if is_map else alpha])

    def _sigmoid(self, node: ir.Node) -> KerasTensor:
        return self._layers.Activation("sigmoid", name=self._name(node.name))(self._input(node))

    def _softmax(self, node: ir.Node) -> KerasTensor:
        return self._layers.Softmax(name=self._name(node.name))(self._input(node))

    # Two operands

    def _add(self, node: ir.Node) -> KerasTensor:
        left, right = self._operands(node)
        if all(constant_of(value) is None for value in node.inputs):
            return self._layers.Add(name=self._name(node.name))([left, right])
        return left + right

    def _sub(self, node: ir.Node) -> KerasTensor:
        left, right = self._operands(node)
        return left - right

    def _mul(self, node: ir.Node) -> KerasTensor:
        left, right = self._operands(node)
        return left * right

    def _div(self, node: ir.Node) -> KerasTensor:
        left, right = self._operands(node)
        return left / right

    def _operands(self, node: ir.Node) -> tuple[Any, Any]:
        rank = len(shape_of(node.outputs[0]))
        return self._operand(node.inputs[0], rank), self._operand(node.inputs[1], rank)

    def _operand(self, value: ir.Value | None, rank: int) -> Any:
        assert value is not None
        array = constant_of(value)
        if array is None:
            return self._tensors[value]
        return self._tf.constant(channels_last(array, rank))

    def _concat(self, node: ir.Node) -> KerasTensor:
        tensors = [self._input(node, index) for index in range(len(node.inputs))]
        return self._layers.Concatenate(-1, name=self._name(node.name))(tensors)


def channels_last(array: _Array, rank: int) -> _Array:
    """A constant that broadcasts against NCHW, for NHWC: a scalar or [C].

    LCE fuses constants behind a binary convolution without checking their shape, and its
    interpreter then dies on any other: only rank 0 and 1 are safe.
    """
    if array.size == 1:
        return array.reshape(())
    aligned = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if aligned.size != aligned.shape[1]:
        raise ValueError(f"a constant of shape {array.shape} is not one number per channel")
    return aligned.reshape(-1)


def _keras_mode(padding: LayerPadding) -> str:
    return "same" if padding.mode == "same" else "valid"


def _required(node: ir.Node, index: int) -> _Array:
    array = constant_of(node.inputs[index])
    assert array is not None, f"{node.name} input {index} is not a constant"
    return array


def _optional(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


# What the builder knows, by ONNX operator; capabilities.py refuses all others.
TRANSLATIONS: dict[str, Callable[[KerasBuilder, ir.Node], KerasTensor]] = {
    "Add": KerasBuilder._add,
    "AveragePool": KerasBuilder._average_pool,
    "BatchNormalization": KerasBuilder._batch_norm,
    "Clip": KerasBuilder._clip,
    "Concat": KerasBuilder._concat,
    "Conv": KerasBuilder._conv,
    "Div": KerasBuilder._div,
    "Flatten": KerasBuilder._flatten,
    "Gemm": KerasBuilder._linear,
    "GlobalAveragePool": KerasBuilder._global_average_pool,
    "MatMul": KerasBuilder._linear,
    "MaxPool": KerasBuilder._max_pool,
    "Mul": KerasBuilder._mul,
    "PRelu": KerasBuilder._prelu,
    "ReduceMean": KerasBuilder._global_average_pool,
    "Relu": KerasBuilder._relu,
    "Reshape": KerasBuilder._flatten,
    "Sigmoid": KerasBuilder._sigmoid,
    "Softmax": KerasBuilder._softmax,
    "Sub": KerasBuilder._sub,
}
