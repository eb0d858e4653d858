"""Binary convolutions and linear layers: they take an algorithm and know none by name.

Each is a subclass of its float twin, with the same parameter names, so that the weights of a
trained FP32 model load into a binarized one. `make_conv2d` and its siblings give the float layer
where the algorithm is None; architectures call those.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, LayerShape


class BinaryLayer(nn.Module):
    """A layer that multiplies ±1 with ±1: `α · op(sign(x), sign(W)) + bias`.

    Attributes:
        weight: Latent weights, real; binarized anew in each forward pass.
        bias: [O] or None; added in float, after the scale.
        binarizer: What the algorithm does in this layer, with what it has learned here.
    """

    weight: Tensor
    bias: Tensor | None
    binarizer: Binarizer

    def operator(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution or matrix product of both, without bias."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Binarize `x` and the weights, combine them, scale, add the bias."""
        binarizer = self.binarizer
        output = self.operator(binarizer.binarize_input(x), binarizer.binarize_weight(self.weight))
        output = binarizer.rescale(output, self.weight, x)
        return output if self.bias is None else output + binarizer.shape.broadcast(self.bias)


class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """Binary 2-d convolution, [N, I, H, W] → [N, O, H', W'].

    Padding is with zeros, applied after the sign: a padded position adds nothing to the sum.

    Args:
        algorithm: How to binarize.
        in_channels: I.
        out_channels: O.
        kernel_size: As in `nn.Conv2d`, like all that follows.
        stride: …
        padding: Numbers only.
        dilation: …
        groups: …
        bias: Whether a float bias is added after the scale.

    Example:
        >>> import torch
        >>> from bibench_train import algorithms
        >>> layer = BinaryConv2d(algorithms.load("bnn"), 4, 8, 3, padding=1, groups=2, bias=False)
        >>> output = layer(torch.randn(1, 4, 5, 5))
        >>> output.shape, bool((output == output.round()).all())
        (torch.Size([1, 8, 5, 5]), True)
    """

    def __init__(
        self,
        algorithm: Algorithm,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self.binarizer = algorithm.make_binarizer(_conv_shape(self))

    def operator(self, x: Tensor, weight: Tensor) -> Tensor:
        """`conv2d(x, weight)` with this layer's geometry."""
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


class BinaryConv1d(BinaryLayer, nn.Conv1d):
    """Binary 1-d convolution, [N, I, L] → [N, O, L']; arguments as in `BinaryConv2d`."""

    def __init__(
        self,
        algorithm: Algorithm,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self.binarizer = algorithm.make_binarizer(_conv_shape(self))

    def operator(self, x: Tensor, weight: Tensor) -> Tensor:
        """`conv1d(x, weight)` with this layer's geometry."""
        return F.conv1d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


class BinaryLinear(BinaryLayer, nn.Linear):  # type: ignore[misc]  # both bases name a bias
    """Binary linear layer, [..., I] → [..., O].

    Args:
        algorithm: How to binarize.
        in_features: I.
        out_features: O.
        bias: Whether a float bias is added after the scale.
    """

    def __init__(
        self, algorithm: Algorithm, in_features: int, out_features: int, bias: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.binarizer = algorithm.make_binarizer(LayerShape(in_features, out_features))

    def operator(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x @ weight.T`."""
        return F.linear(x, weight)


def make_conv2d(
    algorithm: Algorithm | None,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A binary 2-d convolution, or `nn.Conv2d` where `algorithm` is None (FP32)."""
    geometry = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
    return nn.Conv2d(*geometry) if algorithm is None else BinaryConv2d(algorithm, *geometry)


def make_linear(
    algorithm: Algorithm | None, in_features: int, out_features: int, bias: bool = True
) -> nn.Linear:
    """A binary linear layer, or `nn.Linear` where `algorithm` is None (FP32)."""
    if algorithm is None:
        return nn.Linear(in_features, out_features, bias)
    return BinaryLinear(algorithm, in_features, out_features, bias)


def binary_layers(model: nn.Module) -> Iterator[tuple[str, BinaryLayer]]:
    """Name and layer of each binary layer in `model`, in the order of definition."""
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer):
            yield name, module


def set_output_sizes(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Tell each binary layer that asks for it what size its output has, from one dry pass.

    Call it before the optimizer is built: a layer may create parameters of that size. Models
    without such layers are left as they are.

    Args:
        model: Any module with binary layers inside.
        input_shape: Of one input without the batch, such as (3, 32, 32).

    Example:
        >>> from bibench_train import algorithms
        >>> layer = BinaryConv2d(algorithms.load("xnorpp"), 4, 8, 3, padding=1)
        >>> set_output_sizes(layer, (4, 5, 6))
        >>> sorted(tuple(p.shape) for p in layer.binarizer.parameters())
        [(5,), (6,), (8,)]
    """
    asking = {n: layer for n, layer in binary_layers(model) if layer.binarizer.needs_output_size}
    if not asking:
        return
    sizes: dict[str, tuple[int, ...]] = {}
    dry = copy.deepcopy(model).to("meta").eval()
    for name, layer in binary_layers(dry):
        if name in asking:
            layer.register_forward_hook(
                lambda layer, _, output, name=name: sizes.update(
                    {name: tuple(output.shape[2:]) if layer.binarizer.shape.kernel_size else ()}
                )
            )
    with torch.no_grad():
        dry(torch.zeros(1, *input_shape, device="meta"))
    for name, layer in asking.items():
        layer.binarizer.set_output_size(sizes[name])


def _conv_shape(conv: nn.Conv1d | nn.Conv2d) -> LayerShape:
    if isinstance(conv.padding, str):
        raise TypeError(f'padding="{conv.padding}" is not supported here: give it as numbers')
    return LayerShape(
        in_channels=conv.in_channels,
        out_channels=conv.out_channels,
        kernel_size=tuple(conv.kernel_size),
        stride=tuple(conv.stride),
        padding=tuple(conv.padding),
        dilation=tuple(conv.dilation),
        groups=conv.groups,
    )
