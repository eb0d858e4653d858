"""Image folder: photographs in one folder per class, as ImageNet is usually unpacked.

Source: yours. `DIR/train/<class>/*.jpg` and `DIR/val/<class>/*.jpg`; the held-out folder may be
called `validation` or `test` too. The classes are the folder names in order, the same in both.

Split: as the folders say. Training images are a random part of 8 % to 100 % of the area, of aspect
ratio 3/4 to 4/3, resized, and mirrored half of the time. Test images are resized to 256/224 of the
image size by their shorter side and cropped at the centre.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bibench_train.datasets._dataset import Dataset, normalise
from bibench_train.datasets._on_demand import ImagesOnDemand, Item
from bibench_train.errors import DatasetError, MissingPackageError
from bibench_train.training.recipe import Recipe

try:
    from bibench_train.datasets import _image_file
except ModuleNotFoundError as error:
    if error.name != "PIL":
        raise
    raise MissingPackageError("reading image files", "pillow", "train") from error

TRAIN = "train"
HELD_OUT = ("val", "validation", "test")
IMAGE_SIZE = 224
RECIPE = Recipe(epochs=100, batch_size=256)
"""BiBench's for ImageNet."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's training images."""
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar")


@dataclass(frozen=True, eq=False)
class Split:
    """The files of one split."""

    root: Path
    files: np.ndarray[Any, np.dtype[np.bytes_]]
    """[N], `<class>/<file>`: bytes in one block, which workers share instead of copying."""
    labels: np.ndarray[Any, np.dtype[np.int64]]
    """[N]."""

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Of one file."""
        return self.root / os.fsdecode(bytes(self.files[index]))


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder(ImagesOnDemand):
    """Folders of image files.

    Attributes:
        classes: The folder names; a label is a place in here.
        train: The training split.
        test: The held-out split.
        image_size: Pixels of each side of what the network sees.
        mean: Of each channel, on a scale of 0 to 1.
        std: Likewise.
    """

    name: str = "image_folder"
    num_classes: int
    fp32_recipe: Recipe = RECIPE
    binary_recipe: Recipe = RECIPE
    classes: tuple[str, ...]
    train: Split
    test: Split
    image_size: int = IMAGE_SIZE
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    workers: int | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, image_size, image_size)."""
        return 3, self.image_size, self.image_size

    @property
    def train_size(self) -> int:
        """Files in the training folders."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Files in the held-out folders."""
        return len(self.test)

    def train_item(self, index: int, draw: int) -> Item:
        """A random part of an image, [H, W, C] uint8, and its label."""
        random = Random(draw << 32 | index)  # noqa: S311 - augmentation
        image = _image_file.read_for_training(self.train.path(index), self.image_size, random)
        return image, int(self.train.labels[index])

    def test_item(self, index: int) -> Item:
        """The centre of an image, [H, W, C] uint8, and its label."""
        image = _image_file.read_for_testing(self.test.path(index), self.image_size)
        return image, int(self.test.labels[index])

    def stack(self, images: Sequence[Tensor]) -> Tensor:
        """The images as a normalised batch."""
        return normalise(torch.stack(list(images)), self.mean, self.std)


def load(
    data: Path | None = None, image_size: int | None = None, workers: int | None = None
) -> Dataset:
    """The data set; images are read when they are needed.

    Args:
        data: The folder with `train/` and `val/`.
        image_size: Pixels of each side of what the network sees; None is 224.
        workers: See `ImagesOnDemand`.

    Raises:
        DatasetError: The folder is not of this form. A damaged image raises when it is read.
        ValueError: An image size below 1.
        MissingPackageError: Pillow is not installed.
    """
    size = IMAGE_SIZE if image_size is None else image_size
    if size < 1:
        raise ValueError(f"image_size is 1 or more, not {size}")
    if data is None:
        raise DatasetError(
            "image_folder needs a folder of yours, with train/<class>/*.jpg and val/<class>/*.jpg "
            "in it: give --data DIR"
        )
    train_root, test_root = _splits(data)
    classes = _common_classes(train_root, test_root)
    return ImageFolder(
        num_classes=len(classes),
        classes=classes,
        train=_scan(train_root, classes),
        test=_scan(test_root, classes),
        image_size=size,
        workers=workers,
    )


def _splits(data: Path) -> tuple[Path, Path]:
    if data.is_file():
        is_archive = data.name.lower().endswith(_ARCHIVES)
        what = "an archive; unpack it, and give" if is_archive else "a file; give"
        raise DatasetError(f"{data} is {what} the folder with train/ and val/ in it")
    if not data.is_dir():
        raise DatasetError(f"{data}: no such folder; looked for train/ and val/ in it")
    if not (data / TRAIN).is_dir():
        raise DatasetError(f"{data}: no {TRAIN}/ in it, which {_holds(data)}")
    for name in HELD_OUT:
        if (data / name).is_dir():
            return data / TRAIN, data / name
    raise DatasetError(
        f"{data}: no {HELD_OUT[0]}/ in it (nor {' or '.join(HELD_OUT[1:])}/), which {_holds(data)}"
    )


def _common_classes(train: Path, test: Path) -> tuple[str, ...]:
    in_train, in_test = _classes(train), _classes(test)
    for lacking, having, names in (
        (test, train, sorted(set(in_train) - set(in_test))),
        (train, test, sorted(set(in_test) - set(in_train))),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DatasetError(
                f"{lacking}: no class folder {names[0]}{more}, where {having} has one; both need "
                "the same classes"
            )
    return in_train


def _classes(root: Path) -> tuple[str, ...]:
    names = sorted(e.name for e in os.scandir(root) if e.name[0] != "." and e.is_dir())
    if not names:
        raise DatasetError(
            f"{root}: no class folders in it, which {_holds(root)}; put the images of each class "
            "into a folder of its own"
        )
    return tuple(names)


def _scan(root: Path, classes: tuple[str, ...]) -> Split:
    files: list[bytes] = []
    counts = []
    for name in classes:
        found = sorted(
            os.fsencode(f"{name}/{entry.name}")
            for entry in os.scandir(root / name)
            if entry.name.lower().endswith(_image_file.SUFFIXES)
            # macOS leaves ._name.jpg beside name.jpg, which is no image.
            and entry.name[0] != "."
            and entry.is_file()
        )
        if not found:
            raise DatasetError(
                f"{root / name}: no images in it (looked for {' '.join(_image_file.SUFFIXES)}), "
                f"which {_holds(root / name)}"
            )
        files += found
        counts.append(len(found))
    return Split(root, np.array(files), np.repeat(np.arange(len(classes)), counts))


def _holds(folder: Path) -> str:
    names = sorted(entry.name for entry in os.scandir(folder))
    if not names:
        return "is empty"
    return f"holds {', '.join(names[:3])}" + (f" and {len(names) - 3} more" * (len(names) > 3))
