import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from bibench_train import datasets
from bibench_train.datasets import digits
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import DatasetError

FILE = Path(digits.__file__).with_name("digits.npz")


@pytest.fixture(scope="module")
def loaded() -> ImagesInMemory:
    dataset = datasets.load("digits")
    assert isinstance(dataset, ImagesInMemory)
    return dataset


def test_the_file_is_small_and_holds_no_pickle() -> None:
    assert FILE.stat().st_size < 57_000
    with np.load(FILE, allow_pickle=False) as content:
        assert content["images"].shape == (1797, 8, 8)
        assert (content["images"].dtype, content["labels"].dtype) == (np.uint8, np.uint8)
        assert content["images"].max() == 16
        # The published class counts of the test part.
        counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert np.bincount(content["labels"]).tolist() == counts


def test_held_out_images_are_36_of_each_class_and_none_is_trained_on(
    loaded: ImagesInMemory,
) -> None:
    assert torch.bincount(loaded.test_labels).tolist() == [36] * 10
    assert len(loaded.train_labels) == 1437
    train = {image.numpy().tobytes() for image in loaded.train_images}
    assert not [image for image in loaded.test_images if image.numpy().tobytes() in train]


def test_the_split_never_changes(loaded: ImagesInMemory) -> None:
    # Published accuracies are of this split; another one would need new numbers everywhere.
    found = hashlib.sha256(loaded.test_labels.numpy().tobytes())
    found.update(loaded.test_images[:, 3::8, 3::8, 0].contiguous().numpy().tobytes())
    assert found.hexdigest()[:16] == "30fd03472491f066"


def test_images_are_bytes_of_32_by_32_with_three_equal_channels(loaded: ImagesInMemory) -> None:
    images = loaded.train_images
    assert images.shape[1:] == (32, 32, 3)
    assert images.dtype == torch.uint8
    assert torch.equal(images[..., 0], images[..., 2])
    assert loaded.input_shape == (3, 32, 32)


def test_normalised_training_images_have_mean_0_and_deviation_1(loaded: ImagesInMemory) -> None:
    images = loaded._normalise(loaded.train_images)
    assert abs(images.mean().item()) < 0.001
    assert abs(images.std().item() - 1) < 0.001


def test_digits_are_moved_but_never_mirrored(loaded: ImagesInMemory) -> None:
    assert loaded.crop_padding == 4
    assert not loaded.is_flipped


def test_a_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="digits comes with the package"):
        datasets.load("digits", tmp_path)


def test_another_image_size_is_refused() -> None:
    assert datasets.load("digits", None, 32).input_shape == (3, 32, 32)
    with pytest.raises(DatasetError, match="digits has images of 32×32 pixels"):
        datasets.load("digits", None, 64)


def test_an_epoch_never_changes(loaded: ImagesInMemory) -> None:
    # Resumed runs and published accuracies rest on the order of the draws.
    found = hashlib.sha256()
    for images, labels in loaded.train_batches(64, torch.Generator().manual_seed(5)):
        found.update(images.contiguous().numpy().tobytes())
        found.update(labels.numpy().tobytes())
    assert found.hexdigest()[:16] == "a1205c9c9b172e54"
