"""XNOR-Net: a scale per output channel, and a map of the input's magnitude at run time.

    forward     y = (sign(W) ⊛ sign(A)) ⊙ K · α,  α_o = mean |W_o|
                K = box ⊛ mean over channels of |A|, the box filter with the geometry of the
                convolution and weights 1/(kH·kW); both α and K detached
    gradient    dL/dW = g · 1[|W| <= 1]        dL/dA = g · 1[|A| <= 1]
    inference   ±1 weights, α (folds into the next batch norm) and K, computed for each input

g is the gradient that arrives at sign(W) or sign(A). Padding counts as zeros in K. A group of
channels has a K of its own, over its own channels; a linear layer has one number per row.

Source: Rastegari et al., "XNOR-Net", 2016, https://arxiv.org/abs/1603.05279.
Differs from the paper: no gradient passes through α, where the paper's eq. 10 adds that of its
magnitude. Differs from BiBench's code: that has one K per image, the mean of all |A|, and takes the
mean of each row off a linear layer's weights, which the paper does not.

Example:
    >>> import torch
    >>> from bibench_train.layers import BinaryLinear
    >>> layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.5]]))
    >>> layer(torch.tensor([[3.0, -1.0]])).item()  # ((+1)(+1) + (-1)(-1)) · K 2 · α 1
    4.0
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bibench_train.algorithms._algorithm import Algorithm, Binarizer, Hardened, LayerShape
from bibench_train.ops.estimators import sign_clipped_ste
from bibench_train.ops.scale import mean_magnitude


class InputMagnitude(nn.Module):
    """K: the mean magnitude of the input under each position of the layer's window.

    Attributes:
        box: [groups, 1, *kernel], the box filter; none for a linear layer.
    """

    box: Tensor | None

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self.shape = shape
        box = None
        if shape.kernel_size:
            box = torch.full(
                (shape.groups, 1, *shape.kernel_size), 1 / math.prod(shape.kernel_size)
            )
        # A constant of the geometry has no place in a checkpoint.
        self.register_buffer("box", box, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """K, to multiply the layer's output by.

        Args:
            x: The layer's real input.

        Returns:
            [N, 1, H', W'], [N, 1, L'] or [..., 1]; with groups O channels instead of one.
        """
        s = self.shape
        if self.box is None:
            return x.abs().mean(-1, keepdim=True)
        if s.groups == 1:
            mean = x.abs().mean(1, keepdim=True)
        else:
            mean = x.abs().unflatten(1, (s.groups, -1)).mean(2)  # type: ignore[no-untyped-call]  # torch gives it no types
        convolve = F.conv2d if len(s.kernel_size) == 2 else F.conv1d
        factor = convolve(mean, self.box, None, s.stride, s.padding, s.dilation, s.groups)
        if s.groups == 1 or s.groups == s.out_channels:
            return factor
        return factor.repeat_interleave(s.out_channels // s.groups, dim=1)


class _Rescale(torch.autograd.Function):
    """`output * factor * alpha`, which keeps no tensor of the output's size for the backward."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, factor: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(factor, alpha)
        return (output * factor).mul_(alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        factor, alpha = ctx.saved_tensors
        return (grads[0] * factor).mul_(alpha), None, None


class RescaledByInput(Binarizer):
    """Multiplies the output by K of the input, then by α.

    Attributes:
        magnitude: Computes K.
    """

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.magnitude = InputMagnitude(shape)

    def rescale(self, output: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """`output · K(x) · α`."""
        with torch.no_grad():
            factor = self.magnitude(x)
            alpha = self.shape.broadcast(mean_magnitude(weight))
        rescaled: Tensor = _Rescale.apply(output, factor, alpha)  # type: ignore[no-untyped-call]  # torch gives it no types
        return rescaled

    def harden(self, weight: Tensor) -> Hardened:
        """±1 weights, α, and the module that computes K."""
        hard = super().harden(weight)
        return Hardened(hard.weight, hard.scale, input_scale=copy.deepcopy(self.magnitude))


ALGORITHM = Algorithm(
    title="XNOR-Net",
    source="https://arxiv.org/abs/1603.05279",
    binarize_input=sign_clipped_ste,
    binarize_weight=sign_clipped_ste,
    channel_scale=mean_magnitude,
    binarizer=RescaledByInput,
    scale_granularity="channel",
    rescales_by_activation=True,
    scale="mean |W| per output channel; K: mean |A| under each window, at run time",
    gradient="STE / STE",
    remains="α per output channel, K computed for each input",
)
