"""What a data set is to the training loop, and the kind that fits into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from bibench_train.errors import DatasetError
from bibench_train.training.recipe import Recipe

Batch = tuple[Tensor, Tensor]
"""Images [N, C, H, W] float32, normalised, channels last in memory; labels [N] int64."""


@dataclass(frozen=True)
class Shard:
    """The part of each batch that one of several processes works on.

    Example:
        >>> Shard(1, 2).of(torch.arange(5))
        tensor([1, 3])
    """

    index: int = 0
    count: int = 1

    def of(self, batch: Tensor) -> Tensor:
        """Every `count`-th entry of a batch, from `index` on."""
        return batch[self.index :: self.count]


WHOLE = Shard()
"""All of every batch: one process."""


class Dataset(ABC):
    """Labelled images with a training and a test split."""

    name: str
    num_classes: int
    fp32_recipe: Recipe
    """Suits float networks on this data."""
    binary_recipe: Recipe
    """Suits binarized networks on this data, started from an FP32 checkpoint."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""

    @property
    @abstractmethod
    def train_size(self) -> int:
        """Images in the training split."""

    @abstractmethod
    def train_batches(
        self, batch_size: int, generator: torch.Generator, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        """One epoch of the training split, shuffled and augmented; the last batch may be smaller.

        Every shard gives the same number of batches: the last one of a shard is empty where fewer
        images than shards are left.

        Args:
            batch_size: Images a batch, all shards together.
            generator: Every random choice comes from here, so one seed gives one epoch.
            shard: The part of each batch to give; what an image looks like does not depend on it.
        """

    @abstractmethod
    def test_batches(self, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """The test split in its fixed order, neither shuffled nor augmented."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches that `train_batches` gives."""
        return -(-self.train_size // batch_size)


@dataclass(frozen=True, kw_only=True)
class ImagesInMemory(Dataset):
    """Images held as bytes; augmented a batch at a time by tensor operations.

    Attributes:
        train_images: [N, H, W, C] uint8.
        train_labels: [N] int64.
        test_images: As `train_images`.
        test_labels: As `train_labels`.
        mean: Of each channel, on a scale of 0 to 1.
        std: Likewise.
        crop_padding: Training images are padded with this many pixels of 0 on every side, then
            cropped back at a random place.
        is_flipped: Whether half of the training images are mirrored left to right.
    """

    name: str
    num_classes: int
    fp32_recipe: Recipe
    binary_recipe: Recipe
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    is_flipped: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, height, width, channels = self.train_images.shape
        return channels, height, width

    @property
    def train_size(self) -> int:
        """N of the training split."""
        return len(self.train_labels)

    def train_batches(
        self, batch_size: int, generator: torch.Generator, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        """One shuffled, augmented epoch."""
        order = torch.randperm(self.train_size, generator=generator)
        for batch in torch.split(order, batch_size):
            chosen = shard.of(batch)
            images = self.train_images.index_select(0, chosen)
            # Numbers are drawn for the whole batch, pixels are moved for this shard alone.
            if self.crop_padding:
                places = torch.randint(
                    2 * self.crop_padding + 1, (2, len(batch)), generator=generator
                )
                images = crop(images, self.crop_padding, shard.of(places.T))
            if self.is_flipped:
                is_mirrored = torch.rand(len(batch), generator=generator) < 0.5
                images = flip(images, shard.of(is_mirrored))
            yield self._normalise(images), self.train_labels[chosen]

    def test_batches(self, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """The test split, in order."""
        for start in range(0, len(self.test_labels), batch_size):
            chosen = slice(start, start + batch_size)
            images = shard.of(self.test_images[chosen])
            yield self._normalise(images), shard.of(self.test_labels[chosen])

    def _normalise(self, images: Tensor) -> Tensor:
        return normalise(images, self.mean, self.std)


def check_image_size(name: str, asked: int | None, size: int) -> None:
    """Raise where a data set of one image size is asked for another.

    Raises:
        DatasetError: `asked` is neither None nor `size`.
    """
    if asked not in (None, size):
        raise DatasetError(
            f"{name} has images of {size}×{size} pixels, and {asked} was asked for; leave the "
            "image size out"
        )


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x/255 − mean) / std, channel by channel.

    Args:
        images: [N, H, W, C] uint8.
        mean: Of each channel, on a scale of 0 to 1.
        std: Likewise.

    Returns:
        [N, C, H, W] float32, channels last in memory.

    Example:
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
        >>> normalise(images, (0.5, 0.5), (0.5, 0.25)).flatten().tolist()
        [-1.0, 2.0]
    """
    _, height, width, _ = images.shape
    # One row of numbers as long as an image: subtracting three at a time is ten times slower.
    means = (torch.tensor(mean) * 255.0).repeat(height * width)
    stds = (torch.tensor(std) * 255.0).repeat(height * width)
    normalised = images.flatten(1).float().sub_(means).div_(stds)
    # NHWC to NCHW by strides alone: channels last is what the CPU convolves fastest.
    return normalised.view(images.shape).permute(0, 3, 1, 2)


def crop(images: Tensor, padding: int, places: Tensor) -> Tensor:
    """Pad with zeros, and crop each image back at a place of its own.

    Args:
        images: [N, H, W, C].
        padding: Pixels added on every side.
        places: [N, 2] int64: the row and the column of the padded image where the crop begins,
            0 to 2 · padding.

    Returns:
        [N, H, W, C], same dtype.

    Example:
        >>> images = torch.arange(1, 5, dtype=torch.uint8).reshape(1, 2, 2, 1)
        >>> crop(images, 1, torch.tensor([[0, 1]])).flatten().tolist()
        [0, 0, 1, 2]
    """
    _, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding)).flatten(2).numpy()
    # NumPy copies a crop row by row; torch's indexing would gather it byte by byte.
    window = (height, width * channels)
    windows = sliding_window_view(padded, window, axis=(1, 2))  # type: ignore[call-overload]  # numpy's types lack axes as a tuple
    rows, columns = places.numpy().T
    cropped = windows[np.arange(len(images)), rows, columns * channels]
    return torch.from_numpy(cropped).view(images.shape)


def flip(images: Tensor, is_mirrored: Tensor) -> Tensor:
    """Mirror some images left to right.

    Args:
        images: [N, H, W, C].
        is_mirrored: [N] bool.

    Returns:
        [N, H, W, C], same dtype.
    """
    count = len(images)
    both = torch.cat([images, images.flip(2)])
    return both.index_select(0, torch.arange(count) + count * is_mirrored)
