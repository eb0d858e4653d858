import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bibench_train import datasets
from bibench_train.datasets import image_folder
from bibench_train.datasets._dataset import Batch, Shard
from bibench_train.datasets.image_folder import ImageFolder
from bibench_train.errors import DatasetError
from bibench_train.training.recipe import Recipe

CLASSES = ("apple", "pear", "quince")


def write_images(folder: Path, count: int, seed: int, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    for number in range(count):
        pixels = random.randint(0, 256, (random.randint(20, 40), random.randint(20, 40), 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}{suffix}")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "fruit"
    for number, name in enumerate(CLASSES):
        write_images(root / "train" / name, 4 + number, number)
        write_images(root / "val" / name, 2, 10 + number)
    return root


def load(folder: Path, workers: int = 0, image_size: int = 16) -> ImageFolder:
    dataset = image_folder.load(folder, image_size, workers)
    assert isinstance(dataset, ImageFolder)
    return dataset


def epoch(dataset: ImageFolder, shard: Shard | None = None) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return list(dataset.train_batches(4, generator, shard or Shard()))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for (images, labels), (images_2, labels_2) in zip(one, other, strict=True):
        assert torch.equal(images, images_2)
        assert torch.equal(labels, labels_2)


def test_it_knows_its_form(folder: Path) -> None:
    dataset = datasets.load("image_folder", folder)
    assert isinstance(dataset, ImageFolder)
    assert dataset.name == "image_folder"
    assert dataset.classes == CLASSES
    assert dataset.num_classes == 3
    assert (dataset.train_size, dataset.test_size) == (15, 6)
    assert dataset.input_shape == (3, 224, 224)
    assert dataset.fp32_recipe == dataset.binary_recipe == Recipe(epochs=100, batch_size=256)


def test_another_image_size_is_served(folder: Path) -> None:
    dataset = datasets.load("image_folder", folder, 48)
    assert dataset.input_shape == (3, 48, 48)
    images, _ = next(dataset.test_batches(2))
    assert images.shape == (2, 3, 48, 48)


def test_an_image_size_below_one_is_a_wrong_call(folder: Path) -> None:
    with pytest.raises(ValueError, match="image_size is 1 or more, not 0"):
        image_folder.load(folder, 0)


def test_labels_are_the_places_of_the_sorted_folder_names(folder: Path) -> None:
    labels = torch.cat([labels for _, labels in load(folder).test_batches(4)])
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    trained = torch.cat([labels for _, labels in epoch(load(folder))])
    assert torch.bincount(trained).tolist() == [4, 5, 6]


def test_test_images_come_in_the_order_of_their_names_and_normalised(folder: Path) -> None:
    dataset = load(folder)
    assert [dataset.test.path(i).name for i in range(6)] == ["0.png", "1.png"] * 3
    Image.new("RGB", (20, 20), (255, 0, 51)).save(folder / "val" / "apple" / "0.png")
    images, _ = next(dataset.test_batches(4))
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(images[0, :, 3, 4], torch.tensor(expected))


def test_workers_and_shards_change_no_bit(folder: Path) -> None:
    whole = epoch(load(folder))
    assert_same(epoch(load(folder, workers=2)), whole)
    for index in range(2):
        shard = epoch(load(folder, workers=index), Shard(index, 2))
        assert_same(shard, [(images[index::2], labels[index::2]) for images, labels in whole])
    assert_same(
        list(load(folder, workers=2).test_batches(4)), list(load(folder, workers=0).test_batches(4))
    )


def test_an_image_looks_different_in_another_epoch(folder: Path) -> None:
    dataset = load(folder)
    generator = torch.Generator().manual_seed(0)
    draws = [int(torch.randint(2**62, (), generator=generator)) for _ in range(2)]
    first, second = (dataset.train_item(3, draw)[0] for draw in draws)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(folder: Path, workers: int) -> None:
    path = folder / "train" / "pear" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match="damaged") as caught:
        epoch(load(folder, workers))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_held_out_folder_has_other_names_too(folder: Path, name: str) -> None:
    (folder / "val").rename(folder / name)
    assert load(folder).test.root == folder / name


def test_val_is_taken_where_there_are_several(folder: Path) -> None:
    for name in ("validation", "test"):
        (folder / name).mkdir()
    assert load(folder).test.root == folder / "val"


def test_files_of_other_kinds_and_hidden_ones_are_passed_over(folder: Path) -> None:
    apples = folder / "train" / "apple"
    write_images(apples, 1, 0, ".JPEG")
    (apples / "notes.txt").write_text("no image")
    (apples / "._0.png").write_bytes(b"left by a file manager")
    (apples / "folder.png").mkdir()
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "README.md").write_text("no class")
    dataset = load(folder)
    assert dataset.classes == CLASSES
    assert [dataset.train.path(i).name for i in range(5)] == [
        *("0.JPEG", "0.png", "1.png", "2.png", "3.png")
    ]


def test_names_that_are_no_unicode_are_found_again(folder: Path) -> None:
    odd = os.fsencode(folder / "train" / "apple") + b"/\xff.png"
    Path(os.fsdecode(odd)).write_bytes((folder / "train" / "apple" / "0.png").read_bytes())
    dataset = load(folder)
    assert os.fsencode(dataset.train.path(4)) == odd
    dataset.train_item(4, 0)


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "apple").rename(tmp_path / "elsewhere")
    (folder / "train" / "apple").symlink_to(tmp_path / "elsewhere")
    assert load(folder).train_size == 15


def refusal(data: Path | None) -> str:
    with pytest.raises(DatasetError) as caught:
        image_folder.load(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_folder_given_says_how_to_give_one() -> None:
    assert "give --data DIR" in refusal(None)
    assert "train/<class>/*.jpg" in refusal(None)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = refusal(tmp_path / "nothing")
    assert found == f"{tmp_path / 'nothing'}: no such folder; looked for train/ and val/ in it"


@pytest.mark.parametrize("name", ["fruit.tar", "fruit.tar.gz", "fruit.ZIP"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"packed")
    assert refusal(tmp_path / name) == (
        f"{tmp_path / name} is an archive; unpack it, and give the folder with train/ and val/ in "
        "it"
    )


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("")
    assert "list.txt is a file; give the folder with train/" in refusal(tmp_path / "list.txt")


def test_a_folder_without_train_says_what_it_holds(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: no train/ in it, which is empty"
    for name in ("b.tar", "a.tar", "d", "c"):
        (tmp_path / name).mkdir()
    expected = f"{tmp_path}: no train/ in it, which holds a.tar, b.tar, c and 1 more"
    assert refusal(tmp_path) == expected


def test_a_folder_without_val_says_what_was_looked_for(folder: Path) -> None:
    (folder / "val").rename(folder / "held-out")
    assert refusal(folder) == (
        f"{folder}: no val/ in it (nor validation or test/), which holds held-out, train"
    )


def test_images_without_class_folders_are_to_be_sorted(folder: Path) -> None:
    for path in sorted((folder / "val").iterdir()):
        path.rename(folder / path.name)
    write_images(folder / "val", 2, 0)
    assert refusal(folder) == (
        f"{folder / 'val'}: no class folders in it, which holds 0.png, 1.png; put the images of "
        "each class into a folder of its own"
    )


def test_a_class_without_images_is_named_with_what_was_looked_for(folder: Path) -> None:
    for path in (folder / "train" / "pear").iterdir():
        path.rename(path.with_suffix(".heic"))
    found = refusal(folder)
    assert found.startswith(f"{folder / 'train' / 'pear'}: no images in it (looked for .bmp .jpeg ")
    assert found.endswith("which holds 0.heic, 1.heic, 2.heic and 2 more")


def test_classes_that_differ_are_named(folder: Path) -> None:
    (folder / "val" / "quince").rename(folder / "val" / "quinces")
    assert refusal(folder) == (
        f"{folder / 'val'}: no class folder quince, where {folder / 'train'} has one; both need "
        "the same classes"
    )
    write_images(folder / "train" / "quinces", 1, 0)
    write_images(folder / "val" / "quince", 1, 0)
    write_images(folder / "val" / "fig", 1, 0)
    write_images(folder / "val" / "grape", 1, 0)
    assert f"{folder / 'train'}: no class folder fig and 1 more, where" in refusal(folder)


def test_without_pillow_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from bibench_train import datasets, errors\n"
        "try: datasets.load('image_folder')\n"
        "except errors.MissingPackageError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "reading image files needs pillow" in result.stdout
    assert '".[train]"' in result.stdout
