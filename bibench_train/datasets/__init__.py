"""Data sets, one per file: source, split, preprocessing, normalisation.

A new file is found by itself: it defines `load(data)`, which returns a `Dataset`. Listing the names
imports no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_train.errors import UnknownNameError

if TYPE_CHECKING:
    from bibench_train.datasets._dataset import Dataset


def names() -> tuple[str, ...]:
    """The data sets found in this folder, sorted.

    Example:
        >>> names()
        ('cifar10', 'digits')
    """
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_"))


def check(name: str) -> None:
    """Raise where no data set has this name; imports no torch.

    Raises:
        UnknownNameError: None has.
    """
    if name not in names():
        raise UnknownNameError("dataset", name, names())


def is_packaged(name: str) -> bool:
    """Whether the data comes with this package: no folder and no download is needed."""
    return (Path(__file__).parent / f"{name}.npz").is_file()


def load(name: str, data: Path | None = None) -> Dataset:
    """Load a data set.

    Args:
        name: One of `names()`.
        data: The folder it lies in; None takes the packaged copy, or downloads.

    Raises:
        UnknownNameError: No such data set.
        DatasetError: The folder or what was downloaded is not of the expected form.
    """
    check(name)
    dataset: Dataset = importlib.import_module(f"{__name__}.{name}").load(data)
    return dataset
