"""ReCU's weights: standardised per filter, clamped, binarized."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign

EPSILON = 1e-5
"""Added to a variance before its root."""


class _SignRectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tau: Tensor) -> Tensor:
        ctx.save_for_backward(weight, tau)
        centred = weight - weight.mean(_filter_dims(weight), keepdim=True)
        # Neither the positive factor nor the symmetric clamp changes a sign.
        return sign(centred, out=centred)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        weight, tau = ctx.saved_tensors
        dims = _filter_dims(weight)
        center = weight.mean(dims, keepdim=True)
        freedom = max(weight.numel() // center.numel() - 1, 1)
        centred = weight - center
        wide = torch.promote_types(weight.dtype, torch.float32)
        norm = torch.linalg.vector_norm(centred, dim=dims, keepdim=True, dtype=wide)
        variance = norm.square() / freedom + EPSILON
        deviation = variance.sqrt()
        magnitude = centred.abs()
        # |W̃| <= Q, both sides divided by 2√2 and multiplied by the deviation.
        spread = (magnitude.mean(dims, keepdim=True, dtype=wide) / deviation).mean()
        bound = -spread * torch.log(2.0 - 2.0 * tau) * deviation
        gradient = magnitude.le_(bound.to(weight.dtype)).mul_(grads[0])
        # What is left is the gradient of (W - μ) / σ, as of any standardisation.
        mean = gradient.mean(dims, keepdim=True)
        total = (gradient * centred).sum(dims, keepdim=True, dtype=wide)
        pull = (total / (freedom * variance)).to(weight.dtype)
        factor = (2.0 * math.sqrt(2.0) / deviation).to(weight.dtype)
        return gradient.addcmul_(centred, -pull).sub_(mean).mul_(factor), None


def _filter_dims(weight: Tensor) -> tuple[int, ...]:
    return tuple(range(1, weight.dim())) or (0,)


def sign_rectified(weight: Tensor, tau: Tensor) -> Tensor:
    """Binarize to {-1, +1} around each filter's mean; the gradient is that of the clamped weights.

    Forward: `+1 where W >= μ, else -1`, with μ the mean of the filter. Backward: the gradient of
    `clamp(W̃, -Q, Q)` with

        W̃ = (W - μ) · 2√2 / √(σ² + 1e-5),  Q = -b · ln(2 - 2τ),  b = mean |W̃| over the layer

    through μ and the unbiased variance σ²; b is detached. Weights beyond the τ quantile, which
    almost never change their sign, move back into the bulk.

    Source: Xu et al., "ReCU", 2021, https://arxiv.org/abs/2103.12369. Differs from its code: a
    filter of one weight has the variance 0, so that its gradient is 0.

    Args:
        weight: Latent weights [O, ...]; a single dimension is a single filter.
        tau: τ in (0.5, 1), a scalar tensor.

    Returns:
        Same shape, dtype and device as `weight`; every element is exactly -1 or +1.

    Raises:
        TypeError: `weight` is not floating point, so it can carry no gradient.

    Example:
        >>> weight = torch.tensor([[0.5, 1.0, 1.0, 9.5]], requires_grad=True)
        >>> sign_rectified(weight, torch.tensor(0.85)).detach()
        tensor([[-1., -1., -1.,  1.]])
        >>> upstream = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> sign_rectified(weight, torch.tensor(0.85)).backward(upstream)
        >>> weight.grad  # 9.5 lies beyond Q: its own gradient is cut
        tensor([[ 0.4167, -0.2206, -0.2206,  0.0245]])
    """
    if not weight.is_floating_point():
        raise TypeError(f"a surrogate gradient needs a floating tensor, got {weight.dtype}")
    return _SignRectified.apply(weight, tau)  # type: ignore[no-any-return,no-untyped-call]  # torch gives it no types
