"""BiPer's weights: a sine wave of the latent weight, then its sign, a square wave."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign


class _SignSine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, frequency: float, is_binary: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.frequency = frequency
        wave = (weight * frequency).sin_()
        # Both are computed: to ask which is needed would wait for the device in every layer.
        return torch.where(is_binary, sign(wave), wave)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight: Tensor = ctx.saved_tensors[0]
        slope = (weight * ctx.frequency).cos_().mul_(ctx.frequency)
        return slope.mul_(grads[0]), None, None


def sign_sine(weight: Tensor, frequency: float, is_binary: Tensor) -> Tensor:
    """`sin(ωW)`, or its sign: {-1, +1}. The gradient is that of the sine in both cases.

    Forward: `sin(ωW)`, or `+1 where sin(ωW) >= 0, else -1`. Backward: `g · ω · cos(ωW)`.

    Source: Vargas et al., "BiPer", 2024, https://arxiv.org/abs/2404.01278.

    Args:
        weight: Latent weights, any shape, floating dtype.
        frequency: ω.
        is_binary: A boolean scalar tensor: whether to take the sign.

    Returns:
        Same shape, dtype and device as `weight`, in [-1, +1].

    Raises:
        TypeError: `weight` is not floating point, so it can carry no gradient.

    Example:
        >>> weight = torch.tensor([-0.1, 0.0, 0.05], requires_grad=True)
        >>> sign_sine(weight, 20.0, torch.tensor(False)).detach()
        tensor([-0.9093,  0.0000,  0.8415])
        >>> sign_sine(weight, 20.0, torch.tensor(True)).detach()
        tensor([-1.,  1.,  1.])
        >>> sign_sine(weight, 20.0, torch.tensor(True)).sum().backward()
        >>> weight.grad
        tensor([-8.3229, 20.0000, 10.8060])
    """
    if not weight.is_floating_point():
        raise TypeError(f"a surrogate gradient needs a floating tensor, got {weight.dtype}")
    wave: Tensor = _SignSine.apply(weight, frequency, is_binary)  # type: ignore[no-untyped-call]  # torch gives it no types
    return wave


class _MeanSquaredCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, frequency: float) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.frequency = frequency
        return (weight * frequency).cos_().square_().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        weight: Tensor = ctx.saved_tensors[0]
        factor = grads[0] * (-ctx.frequency / weight.numel())
        return (weight * (2.0 * ctx.frequency)).sin_().mul_(factor), None


def mean_squared_cosine(weight: Tensor, frequency: float) -> Tensor:
    """`mean(cos²(ωW))`: 0 where every |sin(ωW)| is 1; gradient `-ω · sin(2ωW) / count`.

    Args:
        weight: Latent weights, any shape, floating dtype.
        frequency: ω.

    Returns:
        A scalar in [0, 1].

    Example:
        >>> mean_squared_cosine(torch.tensor([0.0, 0.0]), 20.0)
        tensor(1.)
        >>> weight = torch.tensor([3.14159 / 40, 3.14159 / 80])  # sin is 1, √½
        >>> round(mean_squared_cosine(weight, 20.0).item(), 4)
        0.25
    """
    mean: Tensor = _MeanSquaredCosine.apply(weight, frequency)  # type: ignore[no-untyped-call]  # torch gives it no types
    return mean
