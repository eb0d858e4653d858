"""Straight-through estimators: sign in the forward pass, a surrogate gradient in the backward.

The sign function has derivative 0 almost everywhere, so nothing below it would ever learn. Each
estimator here keeps the exact forward pass and replaces the derivative alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign


class _SignClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float, is_parameter: bool) -> Tensor:
        ctx.limit, ctx.is_parameter = limit, is_parameter
        if is_parameter:
            ctx.save_for_backward(x)
            return sign(x)
        magnitude = x.abs()
        # A mask takes a quarter of the memory of x, and the backward needs nothing else of it.
        # Compared in place, then converted: a comparison into booleans takes twice as long.
        ctx.save_for_backward(magnitude.le_(limit).to(torch.bool))
        return sign(x, out=magnitude)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        saved: Tensor = ctx.saved_tensors[0]
        if ctx.is_parameter:
            is_within = saved.abs().le_(ctx.limit)
        else:
            # A product with booleans takes four times as long; bytes become floats quickly.
            is_within = saved.view(torch.uint8).to(grads[0].dtype)
        return is_within.mul_(grads[0]), None, None


def sign_clipped_ste(x: Tensor, limit: float = 1.0) -> Tensor:
    """Binarize to {-1, +1} with the clipped straight-through estimator.

    Forward: `+1 where x >= 0, else -1`. Backward: `g * 1[|x| <= limit]`, the derivative of
    `clamp(x, -limit, limit)`: of Hardtanh, where the limit is 1.

    Source: Hubara et al., "Binarized Neural Networks", 2016, eq. 4,
    https://arxiv.org/abs/1602.02830.

    Args:
        x: Latent weights or activations, any shape, floating dtype.
        limit: Positive; beyond it a value learns no more.

    Returns:
        Same shape, dtype and device as `x`; every element is exactly -1 or +1.

    Raises:
        TypeError: `x` is not floating point, so it can carry no gradient.

    Example:
        >>> x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.5], requires_grad=True)
        >>> sign_clipped_ste(x).detach()
        tensor([-1., -1.,  1.,  1.,  1.])
        >>> sign_clipped_ste(x).sum().backward()
        >>> x.grad
        tensor([0., 1., 1., 1., 0.])
        >>> (gradient,) = torch.autograd.grad(sign_clipped_ste(x, 1.5).sum(), x)
        >>> gradient
        tensor([0., 1., 1., 1., 1.])
    """
    # A leaf lives on without us, so that keeping it costs nothing; an activation does not.
    signs: Tensor = _SignClippedSTE.apply(x, limit, x.is_leaf)  # type: ignore[no-untyped-call]  # torch gives it no types
    return signs


class _SignPolynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        # In place after the first step: one new tensor instead of four.
        return x.abs().mul_(-2.0).add_(2.0).relu_().mul_(grads[0])


def sign_polynomial(x: Tensor) -> Tensor:
    """Binarize to {-1, +1} with Bi-Real Net's piecewise polynomial surrogate.

    Forward: `+1 where x >= 0, else -1`. Backward: `g * max(0, 2 - 2|x|)`, the derivative of
    `F(x) = x² + 2x` on [-1, 0) and `2x - x²` on [0, 1), which is flat at ±1 beyond.

    Source: Liu et al., "Bi-Real Net", 2018, eq. 6, https://arxiv.org/abs/1808.00278.

    Args:
        x: Activations, any shape, floating dtype; expected in about [-1, 1] (after batch norm),
            since the gradient is 0 beyond that.

    Returns:
        Same shape, dtype and device as `x`; every element is exactly -1 or +1.

    Raises:
        TypeError: `x` is not floating point, so it can carry no gradient.

    Example:
        >>> x = torch.tensor([-2.0, -0.25, 0.0, 0.5], requires_grad=True)
        >>> sign_polynomial(x).detach()
        tensor([-1., -1.,  1.,  1.])
        >>> sign_polynomial(x).sum().backward()
        >>> x.grad
        tensor([0.0000, 1.5000, 2.0000, 1.0000])
    """
    return _SignPolynomial.apply(x)  # type: ignore[no-any-return,no-untyped-call]  # torch gives it no types
