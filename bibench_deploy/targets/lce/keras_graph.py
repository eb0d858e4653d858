"""A Keras model under construction: what translations of operators read and add to.

Maps of rank 4 are NHWC, and turned by 180° where the network is; tensors of any other rank
keep the order that they have in ONNX.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.targets.lce.residency import to_nhwc

Array = npt.NDArray[np.generic]
KerasTensor = Any


class KerasGraph:
    """The tensors that are there so far, by ONNX value, and TensorFlow to add more.

    Attributes:
        tf: TensorFlow.
        layers: `tf.keras.layers`.
        tensors: what each ONNX value became.
        flattened: channels, height and width of the maps that were flattened as they are,
            NHWC: whatever reads such a row brings its own weights into that order.
        is_rotated: whether maps are turned by 180°.
    """

    def __init__(self, is_rotated: bool) -> None:
        import tensorflow as tf

        self.tf, self.layers = tf, tf.keras.layers
        self.tensors: dict[ir.Value, KerasTensor] = {}
        self.flattened: dict[ir.Value, tuple[int, int, int]] = {}
        self.is_rotated = is_rotated
        self._names: set[str] = set()

    def name(self, name: str | None) -> str:
        """A name that Keras accepts and that the model does not use yet."""
        plain = re.sub(r"[^A-Za-z0-9_.]", "_", name or "layer").lstrip("_.") or "layer"
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
        if source not in self.flattened:
            return weight
        return to_nhwc(weight, self.flattened[source], self.is_rotated)


def required(node: ir.Node, index: int) -> Array:
    """The constant that a node reads."""
    array = constant_of(node.inputs[index])
    assert array is not None, f"{node.name} input {index} is not a constant"
    return array


def optional(node: ir.Node, index: int) -> Array | None:
    """The constant that a node reads, or None where that input is left out."""
    return constant_of(node.inputs[index]) if len(node.inputs) > index else None
