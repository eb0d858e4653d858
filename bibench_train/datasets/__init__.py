"""Data sets, one per file: source, split, preprocessing, normalisation.

A new file is found by itself: it defines `load(data, image_size)`, which returns a `Dataset`.
Listing the names imports no torch.

The classes to make a data set of your own from are names of this package: `TorchDataset` for two
torch data sets, `ImagesInMemory` for bytes that fit into memory, `ImagesOnDemand` for images that
are read one by one, `Dataset` for anything else.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_train.errors import UnknownNameError

if TYPE_CHECKING:
    from bibench_train.datasets._dataset import Dataset, ImagesInMemory, Shard
    from bibench_train.datasets._on_demand import ImagesOnDemand
    from bibench_train.datasets._torch_dataset import TorchDataset

__all__ = [
    "Dataset",
    "ImagesInMemory",
    "ImagesOnDemand",
    "Shard",
    "TorchDataset",
    "check",
    "is_packaged",
    "load",
    "names",
]

_DEFINED_IN = {
    "Dataset": "_dataset",
    "ImagesInMemory": "_dataset",
    "ImagesOnDemand": "_on_demand",
    "Shard": "_dataset",
    "TorchDataset": "_torch_dataset",
}


def __getattr__(name: str) -> object:
    # At first use, since these import torch.
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)


def names() -> tuple[str, ...]:
    """The data sets found in this folder, sorted.

    Example:
        >>> names()
        ('cifar10', 'digits', 'image_folder')
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


def load(name: str, data: Path | None = None, image_size: int | None = None) -> Dataset:
    """Load a data set.

    Args:
        name: One of `names()`.
        data: The folder it lies in; None takes the packaged copy, or downloads.
        image_size: Pixels of each side of what the network sees; None takes the data set's own.

    Raises:
        UnknownNameError: No such data set.
        DatasetError: The folder or what was downloaded is not of the expected form, or the data set
            does not come in this size.
    """
    check(name)
    dataset: Dataset = importlib.import_module(f"{__name__}.{name}").load(data, image_size)
    return dataset
