"""Any two torch data sets as the splits of one of ours."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from bibench_train.datasets._on_demand import ImagesOnDemand, Item
from bibench_train.errors import DatasetError
from bibench_train.training.recipe import Recipe

_TEST_DRAW = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchDataset(ImagesOnDemand):
    """Two map-style torch data sets, with their own augmentation and normalisation.

    Around each item the global generators of torch, NumPy and `random` are seeded from the epoch
    and the item's index, so that transforms which draw from them are the same for every number of
    workers and processes, and in a resumed run. A generator that the data set made for itself is
    beyond reach.

    Attributes:
        name: As written to run.json.
        train: Items are (image [C, H, W] float32, label from 0 to `num_classes` - 1).
        test: As `train`, without augmentation.
        num_classes: How many labels there are.

    Raises:
        TypeError: `train` or `test` has no length or no items by index.
        DatasetError: One of them is empty, or its first training item is of another form. Every
            other item is checked when it is read.

    Example:
        >>> pairs = [(torch.zeros(3, 4, 4), 0), (torch.ones(3, 4, 4), 1)]
        >>> dataset = TorchDataset(name="pairs", train=pairs, test=pairs, num_classes=2, workers=0)
        >>> [images.shape for images, _ in dataset.test_batches(2)]
        [torch.Size([2, 3, 4, 4])]
    """

    name: str
    train: data.Dataset[Any] | list[Any]
    test: data.Dataset[Any] | list[Any]
    num_classes: int
    fp32_recipe: Recipe = field(default_factory=Recipe)
    binary_recipe: Recipe = field(default_factory=Recipe)
    workers: int | None = None
    _input_shape: tuple[int, int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for split, items in (("train", self.train), ("test", self.test)):
            if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
                raise TypeError(
                    f"{split} is a map-style data set, with __len__ and __getitem__, not "
                    f"{type(items).__name__}"
                )
            if _size(items) == 0:
                raise DatasetError(f"{self.name}: the {split} split has no items")
        with _seeded(_TEST_DRAW, 0):
            image, _ = self._checked("train", 0, self.train[0], None)
        object.__setattr__(self, "_input_shape", tuple(image.shape))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the first training item."""
        return self._input_shape

    @property
    def train_size(self) -> int:
        """Items in `train`."""
        return _size(self.train)

    @property
    def test_size(self) -> int:
        """Items in `test`."""
        return _size(self.test)

    def train_item(self, index: int, draw: int) -> Item:
        """One item of `train`, read with seeded generators."""
        with _seeded(draw, index):
            return self._checked("train", index, self.train[index], self._input_shape)

    def test_item(self, index: int) -> Item:
        """One item of `test`; a random choice in it is the same every time."""
        with _seeded(_TEST_DRAW, index):
            return self._checked("test", index, self.test[index], self._input_shape)

    def _checked(
        self, split: str, index: int, item: object, shape: tuple[int, int, int] | None
    ) -> Item:
        place = f"{self.name}: {split} item {index}"
        if not (isinstance(item, (tuple, list)) and len(item) == 2):
            raise DatasetError(f"{place} is no pair of image and label: {_form(item)}")
        image, label = item
        if not isinstance(image, Tensor) or image.dtype != torch.float32 or image.dim() != 3:
            raise DatasetError(
                f"{place}: the image is {_form(image)}; give a float32 tensor [C, H, W]"
            )
        if shape is not None and image.shape != shape:
            raise DatasetError(
                f"{place}: the image is {_form(image)}, where the first training image has "
                f"{list(shape)}; resize or crop them to one size"
            )
        if isinstance(label, Tensor) and label.dim() == 0 and not label.is_floating_point():
            label = label.item()
        if not isinstance(label, (int, np.integer)) or isinstance(label, bool):
            raise DatasetError(f"{place}: the label is {_form(label)}; give an integer")
        if not 0 <= label < self.num_classes:
            raise DatasetError(
                f"{place}: the label is {label}; with num_classes={self.num_classes} labels are "
                f"0 to {self.num_classes - 1}"
            )
        return image, int(label)


def _size(items: Any) -> int:
    return len(items)


def _form(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"


@contextlib.contextmanager
def _seeded(draw: int, index: int) -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = np.random.SeedSequence((draw, index)).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    # Not torch.manual_seed, which would seed every GPU too.
    torch.default_generator.manual_seed(int(seeds[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
