"""Which numbers can be figures at all: a device may print anything, and a file may hold it."""

from __future__ import annotations

from typing import Any

# Milliseconds of thirty years, and more inferences and memory than there will be.
BEYOND_MEASURE = 1e12


def is_figure(value: Any) -> bool:
    """Whether it is a number from 0 on that something may have measured.

    Example:
        >>> is_figure(0.5), is_figure(-1), is_figure(True), is_figure(1e308), is_figure("1")
        (True, False, False, False, False)
    """
    return type(value) in (int, float) and 0 <= value < BEYOND_MEASURE


def is_time(value: Any) -> bool:
    """Whether it is such a number above 0.

    Example:
        >>> is_time(0.5), is_time(0)
        (True, False)
    """
    return is_figure(value) and value > 0
