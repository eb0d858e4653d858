"""What a data set is to the training loop, and the kind that fits into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

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
        for chosen in torch.split(order, batch_size):
            images = self.train_images[chosen]
            if self.crop_padding:
                images = random_crop(images, self.crop_padding, generator)
            if self.is_flipped:
                images = random_flip(images, generator)
            yield self._normalise(shard.of(images)), shard.of(self.train_labels[chosen])

    def test_batches(self, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """The test split, in order."""
        for start in range(0, len(self.test_labels), batch_size):
            chosen = slice(start, start + batch_size)
            images = shard.of(self.test_images[chosen])
            yield self._normalise(images), shard.of(self.test_labels[chosen])

    def _normalise(self, images: Tensor) -> Tensor:
        mean = torch.tensor(self.mean) * 255.0
        std = torch.tensor(self.std) * 255.0
        # NHWC to NCHW by strides alone: channels last is what the CPU convolves fastest.
        return ((images.float() - mean) / std).permute(0, 3, 1, 2)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad with zeros and crop each image back at a place of its own.

    Args:
        images: [N, H, W, C].
        padding: Pixels added on every side, so images move by up to this much.
        generator: Draws the places.

    Returns:
        [N, H, W, C], same dtype.

    Example:
        >>> images = torch.arange(1, 5, dtype=torch.uint8).reshape(1, 2, 2, 1)
        >>> random_crop(images, 1, torch.Generator().manual_seed(3)).flatten().tolist()
        [2, 0, 4, 0]
    """
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    places = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows = places[0] + torch.arange(height)
    columns = places[1] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Args:
        images: [N, H, W, C].
        generator: Draws which.

    Returns:
        [N, H, W, C], same dtype.
    """
    is_mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(is_mirrored[:, None, None, None], images.flip(2), images)
