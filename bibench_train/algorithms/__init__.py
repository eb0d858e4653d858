"""Binarization algorithms, one published algorithm per file; the file name is its name.

A new file is found by itself: it defines `ALGORITHM`, an `Algorithm`. Files whose name starts with
an underscore are no algorithms. Listing the names imports no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from bibench_train.errors import UnknownNameError

if TYPE_CHECKING:
    from bibench_train.algorithms._algorithm import Algorithm

FP32 = "fp32"
"""The name that stands for no binarization at all: plain float layers."""


def names() -> tuple[str, ...]:
    """The algorithms found in this folder, sorted; without "fp32", which is none.

    Example:
        >>> "bireal" in names()
        True
    """
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_"))


def check(name: str) -> None:
    """Raise where `name` is neither an algorithm nor "fp32"; imports no torch.

    Raises:
        UnknownNameError: It is neither.
    """
    valid = (FP32, *names())
    if name not in valid:
        raise UnknownNameError("algorithm", name, valid)


def load(name: str) -> Algorithm | None:
    """The algorithm in `algorithms/<name>.py`, or None for "fp32".

    Raises:
        UnknownNameError: No such file; lists the valid names.

    Example:
        >>> load("bireal").title
        'Bi-Real Net'
        >>> load("fp32") is None
        True
    """
    check(name)
    if name == FP32:
        return None
    algorithm: Algorithm = importlib.import_module(f"{__name__}.{name}").ALGORITHM
    return algorithm
