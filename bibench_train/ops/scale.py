"""Channel scales: what a ±1 convolution is multiplied by to come near its float twin."""

from __future__ import annotations

from torch import Tensor


def mean_magnitude(weight: Tensor) -> Tensor:
    """Channel scale α of each output channel: the mean of |W| over all that feeds it.

    `α_o = mean |W_o|` is the least-squares answer to `W_o ≈ α_o · sign(W_o)`.

    Source: Rastegari et al., "XNOR-Net", 2016, eq. 6, https://arxiv.org/abs/1603.05279.

    Args:
        weight: Latent weights [O, ...]: [O, I/groups, kH, kW], [O, I/groups, k] or [O, I].

    Returns:
        [O], detached: the scale follows the weights and carries no gradient to them.

    Example:
        >>> import torch
        >>> mean_magnitude(torch.tensor([[1.0, -3.0], [0.5, 0.0]]))
        tensor([2.0000, 0.2500])
    """
    return weight.detach().abs().flatten(1).mean(1)
