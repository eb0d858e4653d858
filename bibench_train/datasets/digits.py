"""Digits: 1797 handwritten digits of 8×8 pixels, shipped with the package, ready at once.

Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0. `digits.npz` holds the test part of
it unchanged: `images` [1797, 8, 8] uint8 from 0 to 16, `labels` [1797] uint8.

Preprocessing: upscaled bilinearly to 32×32, rescaled to 0…255, three equal channels, so that the
CIFAR forms of the architectures fit. Training images move by up to 4 pixels; none is mirrored,
since a mirrored digit is another sign or none.

Split: 36 images of each class, drawn by a fixed seed, are held out; 1437 are left to train on. The
split is by image: the 13 people whose hands wrote these digits occur in both parts, so accuracy
here says how well a network learned these hands, not how well it would read a stranger's. Use it to
see that a network trains and survives conversion, not to rank algorithms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from bibench_train.datasets._dataset import Dataset, ImagesInMemory, check_image_size
from bibench_train.errors import DatasetError
from bibench_train.training.recipe import Recipe

HELD_OUT_PER_CLASS = 36
SPLIT_SEED = 0


def load(data: Path | None = None, image_size: int | None = None) -> Dataset:
    """The data set, from the package itself.

    Raises:
        DatasetError: `data` is given: there is nothing to look for in it. Or another image size
            than 32.
    """
    check_image_size("digits", image_size, 32)
    if data is not None:
        raise DatasetError(f"digits comes with the package; leave out the data folder {data}")
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        small = torch.from_numpy(file["images"]).float()[:, None] * (255 / 16)
        labels = torch.from_numpy(file["labels"]).long()
    large = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    images = large.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
    is_held_out = _held_out(labels)
    return ImagesInMemory(
        name="digits",
        num_classes=10,
        fp32_recipe=Recipe(epochs=10, batch_size=32, learning_rate=2e-3),
        binary_recipe=Recipe(epochs=20, batch_size=32, learning_rate=2e-3),
        train_images=images[~is_held_out],
        train_labels=labels[~is_held_out],
        test_images=images[is_held_out],
        test_labels=labels[is_held_out],
        mean=(0.3058, 0.3058, 0.3058),
        std=(0.3241, 0.3241, 0.3241),
        crop_padding=4,
    )


def _held_out(labels: torch.Tensor) -> torch.Tensor:
    # RandomState, since NumPy promises its stream for ever and torch promises none.
    random = np.random.RandomState(SPLIT_SEED)
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = np.flatnonzero(labels.numpy() == label)
        is_held_out[torch.from_numpy(random.permutation(members)[:HELD_OUT_PER_CLASS])] = True
    return is_held_out
