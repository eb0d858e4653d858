"""Seeds: what makes two runs of one recipe the same to the bit."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Seed every global generator for one epoch, and give one for the data.

    Each epoch starts from (seed, epoch) alone. A resumed run therefore draws what an uninterrupted
    one would have drawn, and no generator's state needs to be stored.

    Args:
        seed: Of the recipe.
        epoch: Counted from 0.

    Returns:
        A generator for shuffling and augmentation, apart from the global one that layers draw from.

    Example:
        >>> a, b = seed_epoch(0, 3), seed_epoch(0, 3)
        >>> torch.equal(torch.rand(4, generator=a), torch.rand(4, generator=b))
        True
    """
    for_layers, for_data = np.random.SeedSequence((seed, epoch)).generate_state(2)
    random.seed(int(for_layers))
    np.random.seed(int(for_layers))
    torch.manual_seed(int(for_layers))
    return torch.Generator().manual_seed(int(for_data))
