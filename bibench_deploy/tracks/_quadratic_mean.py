"""The mean by which BiBench joins the parts of a track into one overall metric."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt


def quadratic_mean(values: Sequence[float]) -> float:
    """Give √(mean x²), which a large part pulls up more than a small one pulls it down.

    Source: the overall metrics, Equations 2 to 9, of BiBench (Qin et al., ICML 2023),
    https://arxiv.org/abs/2301.11233.

    Raises:
        ValueError: there are no values.

    Example:
        >>> quadratic_mean([1.0, 7.0])
        5.0
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    return sqrt(fsum(value * value for value in values) / len(values))
