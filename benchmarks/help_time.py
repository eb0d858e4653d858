"""How fast `bibench --help` answers. Promise: 0.25 s."""

from __future__ import annotations

from benchmarks._process import BIBENCH, wall_seconds


def measure() -> str:
    """The median of eleven runs, start-up included."""
    return f"bibench --help: {wall_seconds([BIBENCH, '--help'], 11):.2f} s (promise 0.25 s)"
