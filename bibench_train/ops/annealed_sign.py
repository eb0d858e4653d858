"""A sign that is approached: a clamped line that a falling temperature makes steeper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bibench_train.ops.sign import sign

HARD_BELOW = 1e-7
"""The temperature below which the annealed sign is the sign itself."""


class _SignAnnealed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: Tensor) -> Tensor:  # noqa: ARG004 - nothing is saved
        soft = (x / temperature).clamp_(-1.0, 1.0)
        # Both are computed: to ask which is needed would wait for the device in every layer.
        return torch.where(temperature < HARD_BELOW, sign(x), soft)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - identity
        return grads[0], None


def sign_annealed(x: Tensor, temperature: Tensor) -> Tensor:
    """`clamp(x / T, -1, +1)`, and the sign once T is below 1e-7; the gradient is the identity.

    Source: `HardBinaryConv` in the public code of Guo et al., "BNext", 2022,
    https://arxiv.org/abs/2211.12933. Differs from it: 0 becomes +1 once T is below 1e-7.

    Args:
        x: Latent weights, any shape, floating dtype.
        temperature: T, a scalar tensor, not negative.

    Returns:
        Same shape, dtype and device as `x`, in [-1, +1].

    Raises:
        TypeError: `x` is not floating point, so it can carry no gradient.

    Example:
        >>> x = torch.tensor([-2.0, -0.25, 0.0, 0.125], requires_grad=True)
        >>> sign_annealed(x, torch.tensor(0.5)).detach()
        tensor([-1.0000, -0.5000,  0.0000,  0.2500])
        >>> sign_annealed(x, torch.tensor(9e-8)).detach()
        tensor([-1., -1.,  1.,  1.])
        >>> sign_annealed(x, torch.tensor(9e-8)).sum().backward()
        >>> x.grad
        tensor([1., 1., 1., 1.])
    """
    return _SignAnnealed.apply(x, temperature)  # type: ignore[no-any-return,no-untyped-call]  # torch gives it no types
