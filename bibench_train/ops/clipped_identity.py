"""A straight-through estimator of any range: sign forward, the clipped identity backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign


class _SignClippedIdentity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        magnitude = x.abs()
        # As in the plain clipped estimator: one byte per element is kept, and compared in place.
        ctx.save_for_backward(magnitude.le_(limit).to(torch.bool))
        return sign(x, out=magnitude)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        is_within: Tensor = ctx.saved_tensors[0]
        return is_within.view(torch.uint8).to(grads[0].dtype).mul_(grads[0]), None


def sign_clipped_identity(x: Tensor, limit: float) -> Tensor:
    """Binarize to {-1, +1} with a straight-through estimator that reaches as far as `limit`.

    Forward: `+1 where x >= 0, else -1`. Backward: `g * 1[|x| <= limit]`, the derivative of
    `clamp(x, -limit, limit)`. A range beyond 1 lets values learn that a batch norm spreads wider.

    Source: `HardSign` in the public code of Guo et al., "BNext", 2022,
    https://arxiv.org/abs/2211.12933, with limit 1.5.

    Args:
        x: Latent weights or activations, any shape, floating dtype.
        limit: Positive.

    Returns:
        Same shape, dtype and device as `x`; every element is exactly -1 or +1.

    Raises:
        TypeError: `x` is not floating point, so it can carry no gradient.

    Example:
        >>> x = torch.tensor([-2.0, -1.5, 0.0, 1.25], requires_grad=True)
        >>> sign_clipped_identity(x, 1.5).detach()
        tensor([-1., -1.,  1.,  1.])
        >>> sign_clipped_identity(x, 1.5).sum().backward()
        >>> x.grad
        tensor([0., 1., 1., 1.])
    """
    return _SignClippedIdentity.apply(x, limit)  # type: ignore[no-any-return,no-untyped-call]
