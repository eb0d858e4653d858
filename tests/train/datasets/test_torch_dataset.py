import multiprocessing
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bibench_train.datasets import TorchDataset
from bibench_train.datasets._dataset import Batch, Shard
from bibench_train.errors import DatasetError
from bibench_train.training import Progress, train
from bibench_train.training.recipe import Recipe


class Noisy(torch.utils.data.Dataset[Any]):
    """Items that draw from every global generator, as transforms do."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: S311 - this is what is tested
        return torch.tensor(drawn).reshape(3, 1, 1).repeat(1, 2, 2), index % 3


def make(**changes: Any) -> TorchDataset:
    arguments: dict[str, Any] = {
        "name": "noisy",
        "train": Noisy(10),
        "test": Noisy(5),
        "num_classes": 3,
        "workers": 0,
    }
    return TorchDataset(**(arguments | changes))


def epoch(seed: int = 0, shard: Shard | None = None, workers: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return list(make(workers=workers).train_batches(4, generator, shard or Shard()))


def images(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([images for images, _ in batches])


def test_it_knows_its_form() -> None:
    dataset = make()
    assert (dataset.name, dataset.num_classes) == ("noisy", 3)
    assert dataset.input_shape == (3, 2, 2)
    assert (dataset.train_size, dataset.test_size) == (10, 5)
    assert dataset.steps_per_epoch(4) == 3
    assert dataset.fp32_recipe == Recipe()


def test_recipes_of_your_own_are_kept() -> None:
    recipe = Recipe(epochs=2)
    dataset = make(fp32_recipe=recipe, binary_recipe=recipe)
    assert dataset.fp32_recipe is dataset.binary_recipe is recipe


def test_batches_have_the_form_that_training_expects() -> None:
    batch, labels = epoch()[0]
    assert (batch.shape, batch.dtype) == ((4, 3, 2, 2), torch.float32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert (labels.shape, labels.dtype) == ((4,), torch.int64)


def test_what_transforms_draw_depends_on_the_epoch_and_the_item_alone() -> None:
    whole = images(epoch())
    assert torch.equal(images(epoch(workers=2)), whole)
    for shard in (Shard(0, 2), Shard(1, 2)):
        sharded = images(epoch(shard=shard, workers=1))
        assert torch.equal(sharded, torch.cat([x[shard.index :: 2] for x, _ in epoch()]))
    assert len(whole[:, :, 0, 0].flatten().unique()) == 30
    assert not torch.isin(images(epoch(seed=1)), whole).any()


def test_the_test_split_is_the_same_every_time() -> None:
    first, second = (images(list(make().test_batches(2))) for _ in range(2))
    assert torch.equal(first, second)


def test_the_generators_of_the_program_are_left_as_they_were() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    epoch()
    list(make().test_batches(2))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2), torch.tensor(2).int()])
def test_labels_are_integers_of_any_kind(label: object) -> None:
    items = [(torch.zeros(1, 2, 2), label)]
    _, labels = next(make(train=items, test=items).test_batches(1))
    assert labels.tolist() == [2]


GOOD = (torch.zeros(1, 2, 2), 0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.zeros(1, 2, 2), r"is no pair of image and label: a float32 tensor \[1, 2, 2\]"),
        ((torch.zeros(1, 2, 2), 0, 0), "is no pair of image and label: a tuple of 3"),
        ((np.zeros((1, 2, 2)), 0), r"the image is of type ndarray; give a float32 tensor"),
        ((torch.zeros(1, 2, 2).double(), 0), "the image is a float64 tensor"),
        ((torch.zeros(1, 2, 2, dtype=torch.uint8), 0), "the image is a uint8 tensor"),
        ((torch.zeros(2, 2), 0), r"the image is a float32 tensor \[2, 2\]; give"),
        ((torch.zeros(1, 3, 2), 0), r"\[1, 3, 2\], where the first training image has \[1, 2, 2\]"),
        ((torch.zeros(1, 2, 2), 1.0), "the label is of type float; give an integer"),
        ((torch.zeros(1, 2, 2), True), "the label is of type bool"),
        ((torch.zeros(1, 2, 2), torch.zeros(3)), r"the label is a float32 tensor \[3\]"),
        ((torch.zeros(1, 2, 2), 3), "the label is 3; with num_classes=3 labels are 0 to 2"),
        ((torch.zeros(1, 2, 2), -1), "the label is -1; with"),
    ],
)
def test_an_item_of_another_form_is_named_in_one_line(item: object, message: str) -> None:
    dataset = make(train=[GOOD], test=[GOOD, item])
    with pytest.raises(DatasetError, match=message) as caught:
        list(dataset.test_batches(2))
    assert str(caught.value).startswith("noisy: test item 1")
    assert "\n" not in str(caught.value)


def test_the_first_training_item_is_checked_at_once() -> None:
    with pytest.raises(DatasetError, match="noisy: train item 0: the image is of type int"):
        make(train=[(3, 0)])


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DatasetError, match="noisy: the test split has no items"):
        make(test=[])


def test_a_stream_is_refused() -> None:
    with pytest.raises(TypeError, match=r"train is a map-style data set, .* not generator"):
        make(train=(item for item in [GOOD]))


class Photos(Noisy):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(3, 8, 8), index % 3


class Interrupted(Progress):
    def step(self, epoch: int, loss: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_equals_a_whole_one_whatever_the_workers(tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=8)
    splits = {"train": Photos(16), "test": Photos(6), "binary_recipe": recipe}
    train(algorithm="bnn", dataset=make(**splits), out=tmp_path / "whole")
    resumed: dict[str, Any] = {"algorithm": "bnn", "out": tmp_path / "resumed"}
    with pytest.raises(KeyboardInterrupt):
        train(dataset=make(**splits, workers=2), progress=Interrupted(), **resumed)
    train(dataset=make(**splits, workers=1), is_resumed=True, **resumed)
    files = [tmp_path / run / "checkpoint.safetensors" for run in ("whole", "resumed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert multiprocessing.active_children() == []
