"""FDA's surrogate: the derivative of the Fourier series of a square wave, cut after a few terms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign

FREQUENCY = 0.1
"""ω of the square wave whose step at 0 stands for the sign."""


class _SignFourier(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, terms: Tensor) -> Tensor:
        ctx.save_for_backward(x, terms)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, terms = ctx.saved_tensors
        return fourier_slope(x, terms).mul_(grads[0]), None


def fourier_slope(x: Tensor, terms: Tensor) -> Tensor:
    """`4ω/π · Σ cos((2i + 1)ωx)` over i = 0..n, where |x| <= 1, else 0; carries no gradient.

    The sum has the closed form `sin(2(n + 1)ωx) / (2 sin(ωx))`, two sines instead of n + 1 cosines.

    Args:
        x: Any shape, floating dtype; 16-bit values are computed in 32 bits.
        terms: n, a scalar integer tensor.

    Returns:
        Shaped and typed as `x`, in memory of its own.

    Example:
        >>> fourier_slope(torch.tensor([0.0, 1.0, 1.5]), torch.tensor(9))
        tensor([1.2732, 0.5798, 0.0000])
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    wide_x = x.detach().to(wide)
    # The quotient is even, and flat at 0: so near to it it is n + 1 to the last digit, and neither
    # sine is 0 or too small for its digits.
    slope = wide_x.abs().clamp_(1e-9, 1.0)
    divisor = (slope * FREQUENCY).sin_()
    slope.mul_((terms + 1).to(wide) * (2.0 * FREQUENCY)).sin_().div_(divisor)
    is_within = divisor.copy_(wide_x).abs_().le_(1.0)
    return slope.mul_(is_within).mul_(2.0 * FREQUENCY / math.pi).to(x.dtype)


def sign_fourier(x: Tensor, terms: Tensor) -> Tensor:
    """Binarize to {-1, +1} with FDA's estimator in the frequency domain.

    Forward: `+1 where x >= 0, else -1`. Backward: `g · 4ω/π · Σ cos((2i + 1)ωx) · 1[|x| <= 1]`, the
    sum over i = 0..n with ω = 0.1, which nears the derivative of the sign as n grows.

    Source: Xu et al., "Learning Frequency Domain Approximation for Binary Neural Networks", 2021,
    https://arxiv.org/abs/2103.00841.

    Args:
        x: Latent weights or activations, any shape, floating dtype.
        terms: n, a scalar integer tensor.

    Returns:
        Same shape, dtype and device as `x`; every element is exactly -1 or +1.

    Raises:
        TypeError: `x` is not floating point, so it can carry no gradient.

    Example:
        >>> x = torch.tensor([-2.0, -1.0, 0.0], requires_grad=True)
        >>> sign_fourier(x, torch.tensor(9)).detach()
        tensor([-1., -1.,  1.])
        >>> sign_fourier(x, torch.tensor(9)).sum().backward()
        >>> x.grad
        tensor([0.0000, 0.5798, 1.2732])
    """
    return _SignFourier.apply(x, terms)  # type: ignore[no-any-return,no-untyped-call]  # torch gives it no types
