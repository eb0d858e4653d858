"""A Keras model under construction: what translations of operators read and add to.

Tensors of four dimensions are maps: NHWC, and turned by 180° where the network is. Tensors
of any other rank keep the order that they have in ONNX; two kinds of them do not:

  - a row that is a flattened map, where whatever reads it can follow (`channel_order`);
  - rows [N, C, L] that the graph reads or gives as [N, C, 1, L]: Keras has them as [N, L, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.channel_order import is_sequence, map_of_row
from bibench_deploy.targets.lce.residency import keras_name, to_nhwc

Array = npt.NDArray[Any]
KerasTensor = Any

# Axes of a map in NHWC order, as NCHW counts them; and where each NCHW axis is in NHWC.
_NHWC = (0, 2, 3, 1)
_NCHW = (0, 3, 1, 2)


class KerasGraph:
    """The tensors that are there so far, by ONNX value, and TensorFlow to add more.

    Attributes:
        tf: TensorFlow.
        layers: `tf.keras.layers`.
        tensors: what each computed ONNX value became.
        is_rotated: whether maps are turned by 180°.
        binary: the binary layers of the graph.
    """

    def __init__(self, is_rotated: bool, binary: frozenset[ir.Node]) -> None:
        import tensorflow as tf

        self.tf, self.layers = tf, tf.keras.layers
        self.tensors: dict[ir.Value, KerasTensor] = {}
        self.is_rotated = is_rotated
        self.binary = binary
        self._names: set[str] = set()
        # Values that are there in ONNX's order already: no need to bring them into it again.
        self._onnx_ordered: dict[ir.Value, KerasTensor] = {}

    def name(self, name: str | None) -> str:
        """A name that Keras accepts and that the model does not use yet."""
        plain = keras_name(name)
        unique, number = plain, 1
        while unique in self._names:
            unique, number = f"{plain}_{number}", number + 1
        self._names.add(unique)
        return unique

    def input(self, node: ir.Node, index: int = 0) -> KerasTensor:
        """The tensor that a node reads, where it is computed."""
        value = node.inputs[index]
        assert value is not None
        return self.tensors[value]

    def apply(self, layer: Any, tensor: KerasTensor, weights: list[Array]) -> KerasTensor:
        """What a layer with these weights makes of a tensor."""
        result = layer(tensor)
        layer.set_weights(weights)
        return result

    def turned(self, tensor: KerasTensor) -> KerasTensor:
        """A map with height and width reversed, where the network is rotated."""
        return self.tf.reverse(tensor, [1, 2]) if self.is_rotated else tensor

    def in_flat_order(self, source: ir.Value, weight: Array) -> Array:
        """Columns of [O, C·H·W] in the order in which NHWC flattens the same map."""
        map_shape = map_of_row(source)
        return weight if map_shape is None else to_nhwc(weight, map_shape, self.is_rotated)

    def in_onnx_order(self, value: ir.Value) -> KerasTensor:
        """A value as ONNX has it: NCHW and not turned, where it is a map."""
        array = constant_of(value)
        if array is not None:
            return self.tf.constant(np.ascontiguousarray(array))
        if value not in self._onnx_ordered:
            tensor = self.tensors[value]
            self._onnx_ordered[value] = (
                self.tf.transpose(tensor, (0, 2, 1))
                if is_sequence(value)
                else self.unmapped(tensor, shape_of(value))
            )
        return self._onnx_ordered[value]

    def unmapped(self, tensor: KerasTensor, shape: Sequence[int]) -> KerasTensor:
        """A tensor as ONNX has it, where `shape` is what ONNX calls it."""
        if len(shape) != 4:
            return tensor
        _, channels, height, width = shape
        if height * width > 1:
            tensor = self.turned(tensor)
        if channels == 1 or height * width == 1:
            return self.reshaped(tensor, shape)
        return self.tf.transpose(tensor, _NCHW)

    def mapped(self, tensor: KerasTensor, shape: Sequence[int]) -> KerasTensor:
        """The reverse of `unmapped`: a tensor in ONNX's order as the graph keeps it."""
        if len(shape) != 4:
            return tensor
        count, channels, height, width = shape
        if channels == 1 or height * width == 1:
            tensor = self.reshaped(tensor, (count, height, width, channels))
        else:
            tensor = self.tf.transpose(tensor, _NHWC)
        return self.turned(tensor) if height * width > 1 else tensor

    def reshaped(self, tensor: KerasTensor, shape: Sequence[int]) -> KerasTensor:
        """A tensor in another shape, whatever its order; one image stays any number of them."""
        batch = [-1 if size == 1 else size for size in shape[:1]]
        return self.tf.reshape(tensor, (*batch, *shape[1:]))

    def give(self, node: ir.Node, tensor: KerasTensor, index: int = 0) -> KerasTensor:
        """An output of a node, computed in ONNX's order, as the graph keeps it.

        What only readers in ONNX's order use is never brought out of it: Keras leaves out
        layers that lead nowhere.
        """
        value = node.outputs[index]
        self._onnx_ordered[value] = tensor
        return self.mapped(tensor, shape_of(value))

    def axis(self, value: ir.Value, axis: int) -> int:
        """Where an axis of an ONNX value, negative from the end, is in its tensor."""
        rank = len(shape_of(value))
        return _NHWC.index(axis % 4) if rank == 4 else axis % rank

    def constant(self, array: Array, shape: Sequence[int]) -> Array:
        """A constant of an ONNX graph, to broadcast against a tensor that ONNX calls `shape`.

        Where possible its rank is 0 or 1: LCE fuses constants behind a binary layer without
        a look at their shape, and its interpreter then dies on any other (`guarded`).
        """
        if array.size == 1:
            return array.reshape(())
        aligned = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        if len(shape) == 4:
            spatial = aligned[:, :, ::-1, ::-1] if self.is_rotated else aligned
            aligned = np.ascontiguousarray(spatial.transpose(_NHWC))
        return aligned.reshape(-1) if aligned.size == aligned.shape[-1] else aligned

    def operand(self, value: ir.Value, shape: Sequence[int]) -> KerasTensor:
        """A value, to broadcast against a tensor that ONNX calls `shape`."""
        array = constant_of(value)
        if array is not None:
            return self.tf.constant(self.constant(array, shape))
        own = shape_of(value)
        if len(own) == len(shape):
            return self.tensors[value]
        aligned = (*[1] * (len(shape) - len(own)), *own)
        return self.mapped(self.tf.reshape(self.in_onnx_order(value), aligned), aligned)

    def is_behind_binary_layer(self, value: ir.Value) -> bool:
        """Whether LCE may fuse what reads a value into the binary layer that it comes from."""
        node = value.producer()
        while node is not None and node not in self.binary:
            computed = [item for item in node.inputs if item is not None and item in self.tensors]
            if node.op_type not in _FUSED or len(computed) != 1:
                return False
            node = computed[0].producer()
        return node is not None


# What LCE and TensorFlow Lite fuse into a convolution, or move past a reshape.
_FUSED = frozenset(
    ["Add", "BatchNormalization", "Clip", "Div", "Flatten", "Mul", "Relu", "Reshape", "Sub"]
)


def required(node: ir.Node, index: int) -> Array:
    """The constant that a node reads."""
    array = constant_of(node.inputs[index])
    assert array is not None, f"{node.name} input {index} is not a constant"
    return array


def optional(node: ir.Node, index: int) -> Array | None:
    """The constant that a node reads, or None where that input is left out or computed."""
    return constant_of(node.inputs[index]) if len(node.inputs) > index else None
