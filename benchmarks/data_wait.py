"""How much of a training step is spent waiting for data. Promise: below 5 %, on every data set.

FP32 networks, since their steps are the shortest; as `bibench train` runs them, on all cores.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bibench_train.datasets import Dataset

_CLASSES = 4
_STEPS = 12
_DRAWN = 64


@dataclass(frozen=True)
class _Case:
    title: str
    architecture: str
    dataset: Dataset
    batch_size: int


def measure() -> str:
    """The share of one epoch of each case, and the seconds of a step."""
    from bibench_train import datasets, threads

    threads.wait_briefly()
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        kilobytes = write_photographs(photographs, _STEPS * 64)
        cases = (
            _Case("ResNet-20 on digits", "resnet20", datasets.load("digits"), 32),
            _Case("ResNet-18 on CIFAR-10's form", "resnet18", _made_images(_STEPS * 128), 128),
            _Case(
                f"ResNet-18 (224) on JPEGs of 500×375 ({kilobytes:.0f} kB)",
                "resnet18",
                datasets.load("image_folder", photographs),
                64,
            ),
        )
        return "\n".join(_line(case, Path(folder) / str(i)) for i, case in enumerate(cases))


def _line(case: _Case, out: Path) -> str:
    from bibench_train.training import Recipe, train

    run = train(
        architecture=case.architecture,
        algorithm="fp32",
        dataset=case.dataset,
        recipe=Recipe(epochs=1, batch_size=case.batch_size),
        out=out,
    )
    share, seconds = run.info.data_wait_share, run.info.seconds_per_step
    assert share is not None
    assert seconds is not None
    return (
        f"waiting for data, {case.title}, batch {case.batch_size}: {100 * share:.2f} % of a step "
        f"of {seconds:.3f} s (promise 5 %)"
    )


def _made_images(count: int) -> Dataset:
    import torch

    from bibench_train.datasets import ImagesInMemory
    from bibench_train.training import Recipe

    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
    labels = torch.arange(count) % 10
    return ImagesInMemory(
        name="made",
        num_classes=10,
        fp32_recipe=Recipe(),
        binary_recipe=Recipe(),
        train_images=images,
        train_labels=labels,
        test_images=images[:10],
        test_labels=labels[:10],
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        crop_padding=4,
        is_flipped=True,
    )


def write_photographs(folder: Path, count: int) -> float:
    """Write JPEGs that are as large as ImageNet's; returns their mean size in kB.

    A few are drawn, since that takes longer than decoding them; the others are links to those.
    """
    drawn = [folder / f"{number}.jpg" for number in range(_DRAWN)]
    folder.mkdir()
    for number, path in enumerate(drawn):
        _write_photograph(path, number)
    for split, images in (("train", count), ("val", _CLASSES)):
        for number in range(images):
            path = folder / split / f"class{number % _CLASSES}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(drawn[number % _DRAWN].resolve())
    return sum(path.stat().st_size for path in drawn) / _DRAWN / 1000


def _write_photograph(path: Path, seed: int, width: int = 500, height: int = 375) -> None:
    """Waves, the weaker the finer they are, as in photographs, and discs with hard edges."""
    from PIL import Image

    random = np.random.RandomState(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.full((height, width, 3), 128, np.float32)
    for _ in range(16):
        frequency = 10 ** random.uniform(-2.5, -0.4)  # in waves a pixel
        angle, phase = random.uniform(0, 2 * np.pi, 2)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        wave = np.sin(2 * np.pi * frequency * along + phase)
        image += 35 * (0.05 / frequency) ** 0.5 * wave[..., None] * random.uniform(0.5, 1, 3)
    for _ in range(16):
        row, column, radius = random.uniform((0, 0, 8), (height, width, 80))
        is_inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        image[is_inside] = 0.4 * image[is_inside] + 0.6 * random.uniform(0, 255, 3)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=95)
