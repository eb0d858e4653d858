"""Harden a binarized model: keep of each binary layer what remains at inference, as constants.

A hardened layer holds ±1 weights and finished scales and uses plain operations only, so that
`torch.onnx.export` writes GreaterOrEqual, Where, Conv, Mul and Add, and nothing of the training.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_train.algorithms._algorithm import LayerShape
from bibench_train.errors import NotBinaryError
from bibench_train.layers import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    binary_layers,
)


class HardBinaryLayer(nn.Module):
    """What remains of a binary layer: see `Hardened` for the formula.

    Attributes:
        weight: [O, I/groups, *kernel], every element exactly -1 or +1.
        scale: Multiplier of the output, or None. Shaped to broadcast: [1, O, 1, 1] for a 2-d
            convolution, [O] for a linear layer.
        shift: Added to the input before its sign, or None; shaped likewise, with I.
        input_scale: Gives a factor of the output from the layer's input, or None.
        bias: Added last, or None; shaped as `scale`.
        shape: The layer's geometry.
    """

    weight: Tensor
    scale: Tensor | None
    shift: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: BinaryLayer) -> None:
        super().__init__()
        self.shape: LayerShape = layer.binarizer.shape
        hard = layer.binarizer.harden(layer.weight)
        bias = layer.bias
        self.register_buffer("weight", hard.weight)
        # Shaped here, once: reshaping in forward would put Reshape nodes into every export.
        self.register_buffer("scale", self._shaped(hard.scale))
        self.register_buffer("shift", self._shaped(hard.shift))
        self.input_scale = hard.input_scale
        self.register_buffer("bias", self._shaped(None if bias is None else bias.detach().clone()))

    def _shaped(self, values: Tensor | None) -> Tensor | None:
        if values is None or values.dim() > 1:
            return values
        return self.shape.broadcast(values)

    def operator(self, x: Tensor) -> Tensor:
        """The convolution or matrix product with the ±1 weights."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The layer's eval output, from plain operations."""
        shifted = x if self.shift is None else x + self.shift
        # Written with floats: an integer 0 or a cast becomes a Cast node in the export.
        output = self.operator(torch.where(shifted >= 0.0, 1.0, -1.0))
        if self.input_scale is not None:
            output = output * self.input_scale(x)
        if self.scale is not None:
            output = output * self.scale
        if self.bias is not None:
            output = output + self.bias
        return output

    def extra_repr(self) -> str:
        """The geometry, for print(model)."""
        return f"{self.shape.in_channels}, {self.shape.out_channels}, {self.shape.kernel_size}"


class HardBinaryConv2d(HardBinaryLayer):
    """What remains of a `BinaryConv2d`."""

    def operator(self, x: Tensor) -> Tensor:
        """`conv2d(x, weight)`, padded with zeros."""
        s = self.shape
        return F.conv2d(x, self.weight, None, s.stride, s.padding, s.dilation, s.groups)


class HardBinaryConv1d(HardBinaryLayer):
    """What remains of a `BinaryConv1d`."""

    def operator(self, x: Tensor) -> Tensor:
        """`conv1d(x, weight)`, padded with zeros."""
        s = self.shape
        return F.conv1d(x, self.weight, None, s.stride, s.padding, s.dilation, s.groups)


class HardBinaryLinear(HardBinaryLayer):
    """What remains of a `BinaryLinear`."""

    def operator(self, x: Tensor) -> Tensor:
        """`x @ weight.T`."""
        return F.linear(x, self.weight)


_HARD: dict[type[BinaryLayer], type[HardBinaryLayer]] = {
    BinaryConv1d: HardBinaryConv1d,
    BinaryConv2d: HardBinaryConv2d,
    BinaryLinear: HardBinaryLinear,
}


def harden(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode whose binary layers are hardened; `model` stays as it is.

    Returns:
        The copy. A model without binary layers is copied and put in eval mode, no more.

    Raises:
        NotBinaryError: A layer's weights are not ±1 yet; names the layer.
        TypeError: A binary layer of a class this file has no hard form for.

    Example:
        >>> from bibench_train import algorithms
        >>> layer = BinaryLinear(algorithms.load("bireal"), 2, 1)
        >>> hard = harden(nn.Sequential(layer))
        >>> type(hard[0]).__name__, hard[0].weight.abs().unique().tolist()
        ('HardBinaryLinear', [1.0])
        >>> x = torch.randn(4, 2)
        >>> torch.equal(hard(x), nn.Sequential(layer).eval()(x))
        True
    """
    hard = copy.deepcopy(model).eval()
    if isinstance(hard, BinaryLayer):
        return _harden_layer("the layer", hard)
    hardened: dict[BinaryLayer, HardBinaryLayer] = {}
    # A layer that is used in two places has two names, and stays one layer.
    for name, module in list(hard.named_modules(remove_duplicate=False)):
        if isinstance(module, BinaryLayer):
            if module not in hardened:
                hardened[module] = _harden_layer(name, module)
            parent, _, child = name.rpartition(".")
            setattr(hard.get_submodule(parent), child, hardened[module])
    return hard


def is_binary(model: nn.Module) -> bool:
    """Whether every binary layer of `model` holds what can be deployed, by its algorithm's word."""
    try:
        for _, layer in binary_layers(model):
            layer.binarizer.harden(layer.weight)
    except NotBinaryError:
        return False
    return True


def _harden_layer(name: str, layer: BinaryLayer) -> HardBinaryLayer:
    for kind, hard_kind in _HARD.items():
        if isinstance(layer, kind):
            try:
                return hard_kind(layer).eval()
            except NotBinaryError as error:
                raise NotBinaryError(f"{name}: {error}") from error
    raise TypeError(f"{name}: no hard form of {type(layer).__name__} is known")
