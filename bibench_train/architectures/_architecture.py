"""What an architecture is: how to build it, and in which forms it exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One named network, as its family's file offers it."""

    title: str
    """As the paper calls it."""
    source: str
    """Link to the paper."""
    make: Callable[..., nn.Module]
    """Called with `algorithm`, `num_classes`, `in_channels`, `form` and the family's options."""
    image_size: int | None = None
    """Pixels of each side, where the head fits no other size; None for any."""
    forms: tuple[str, ...]
    """Stem and pooling by image size: "cifar" for 32×32, "imagenet" for 224×224; default first."""
