"""A polynomial surrogate that follows the spread of each sample."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign

EPSILON = 1e-5
"""Added to a variance before its root."""


class _SignNormalizedPolynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        mean = x.mean(dims, keepdim=True)
        # Centred before it is squared, so that a mean far from 0 costs no digits; `x.var` takes
        # twenty times as long on a CPU. The memory is that of the result.
        centred = x - mean
        # Of the shape, since a process may be given none of a batch's samples.
        freedom = max(math.prod([x.shape[dim] for dim in dims]) - 1, 1)
        # Variances of 16-bit values are kept in 32 bits.
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(centred, dim=dims, keepdim=True, dtype=wide)
        inverse = (norm.square() / freedom + EPSILON).rsqrt()
        ctx.save_for_backward(x, mean, inverse)
        ctx.dims, ctx.freedom = dims, freedom
        # The factor is positive, so it moves no sign and the forward needs no normalised tensor.
        return sign(x, out=centred)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, mean, inverse = ctx.saved_tensors
        # With r the root, u = g · F'(x / r) / r is the gradient for a constant r ...
        slope, offset = (-2.0 * inverse.square()).to(x.dtype), (2.0 * inverse).to(x.dtype)
        gradient: Tensor = x.abs().mul_(slope).add_(offset).relu_().mul_(grads[0])
        # ... and (x - mean) · Σ(u · x) / (freedom · r²) is taken off for the r that moves with x.
        total = (gradient * x).sum(ctx.dims, keepdim=True, dtype=inverse.dtype)
        pull = (total * inverse.square() / ctx.freedom).to(x.dtype)
        return gradient.addcmul_(x, -pull).add_(pull * mean), None


def sign_normalized_polynomial(x: Tensor, sample_dims: int) -> Tensor:
    """Binarize to {-1, +1}; the polynomial surrogate is taken at `x / √(variance + 1e-5)`.

    Forward: `+1 where x >= 0, else -1`: to divide by something positive changes no sign.
    Backward: the gradient of `F(x / √(var(x) + 1e-5))`, through the variance as well, where
    `F' = max(0, 2 - 2|x|)` and var is the unbiased variance of one sample.

    Source: Xu et al., "ReCU", 2021, https://arxiv.org/abs/2103.12369, whose public code does this
    in training. Differs from it: a sample of one element has the variance 0, not a number that is
    none.

    Args:
        x: Activations, floating dtype.
        sample_dims: How many dimensions, counted from the last, make up one sample: 3 for images
            [N, C, H, W], 1 for rows [..., I].

    Returns:
        Same shape, dtype and device as `x`; every element is exactly -1 or +1.

    Raises:
        TypeError: `x` is not floating point, so it can carry no gradient.

    Example:
        >>> x = torch.tensor([[-3.0, 1.0, 5.0, -3.0]], requires_grad=True)
        >>> sign_normalized_polynomial(x, 1).detach()
        tensor([[-1.,  1.,  1., -1.]])
        >>> sign_normalized_polynomial(x, 1).sum().backward()
        >>> x.grad
        tensor([[0.0932, 0.3925, 0.0333, 0.0932]])
    """
    dims = tuple(range(-sample_dims, 0))
    if not x.is_floating_point():
        raise TypeError(f"a surrogate gradient needs a floating tensor, got {x.dtype}")
    return _SignNormalizedPolynomial.apply(x, dims)  # type: ignore[no-any-return,no-untyped-call]  # torch gives it no types
