import pytest
import torch

from bibench_train.datasets._dataset import ImagesInMemory, Shard, check_image_size, crop, flip
from bibench_train.errors import DatasetError
from bibench_train.training.recipe import Recipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changes: object) -> ImagesInMemory:
    images = torch.randint(0, 256, (10, 4, 6, 3), dtype=torch.uint8, generator=seeded())
    arguments: dict[str, object] = {
        "name": "small",
        "num_classes": 10,
        "fp32_recipe": Recipe(),
        "binary_recipe": Recipe(),
        "train_images": images,
        "train_labels": torch.arange(10),
        "test_images": images,
        "test_labels": torch.arange(10),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.25, 0.5),
    }
    return ImagesInMemory(**(arguments | changes))


def test_an_epoch_gives_each_image_once_with_its_label() -> None:
    dataset = small()
    batches = list(dataset.train_batches(4, seeded()))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(batches) == dataset.steps_per_epoch(4)
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert sorted(labels.tolist()) == list(range(10))
    expected = torch.cat([images for images, _ in dataset.test_batches(10)])
    assert torch.equal(images, expected[labels])


def test_batches_are_normalised_floats_in_channels_last_memory() -> None:
    images, _ = next(small().test_batches(3))
    assert images.shape == (3, 3, 4, 6)
    assert images.is_contiguous(memory_format=torch.channels_last)
    raw = small().test_images[:3, :, :, 1].float() / 255
    torch.testing.assert_close(images[:, 1], (raw - 0.5) / 0.25)


def test_one_seed_gives_one_epoch_and_another_seed_another() -> None:
    dataset = small(crop_padding=1, is_flipped=True)

    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in dataset.train_batches(4, seeded(seed))])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


def test_the_test_split_is_neither_shuffled_nor_augmented() -> None:
    dataset = small(crop_padding=2, is_flipped=True)
    assert torch.cat([y for _, y in dataset.test_batches(3)]).tolist() == list(range(10))
    plain = torch.cat([x for x, _ in small().test_batches(3)])
    assert torch.equal(torch.cat([x for x, _ in dataset.test_batches(3)]), plain)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shards_of_a_batch_are_the_batch_image_by_image(count: int) -> None:
    dataset = small(crop_padding=2, is_flipped=True)
    shards = [list(dataset.train_batches(4, seeded(), Shard(i, count))) for i in range(count)]
    shards_of_test = [list(dataset.test_batches(4, Shard(i, count))) for i in range(count)]
    for parts, whole in (
        (shards, list(dataset.train_batches(4, seeded()))),
        (shards_of_test, list(dataset.test_batches(4))),
    ):
        for step, (images, labels) in enumerate(whole):
            assert {len(part) for part in parts} == {len(whole)}
            for index, part in enumerate(parts):
                assert torch.equal(part[step][0], images[index::count])
                assert torch.equal(part[step][1], labels[index::count])


def test_a_shard_without_images_is_empty_and_keeps_its_form() -> None:
    batches = list(small(crop_padding=2, is_flipped=True).train_batches(4, seeded(), Shard(3, 4)))
    images, labels = batches[-1]
    assert images.shape == (0, 3, 4, 6)
    assert (labels.shape, labels.dtype) == ((0,), torch.int64)


def test_a_crop_is_the_padded_image_from_its_place_on() -> None:
    images = torch.randint(1, 256, (25, 5, 6, 2), dtype=torch.uint8)
    padded = torch.nn.functional.pad(images, (0, 0, 2, 2, 2, 2))
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    for image, cropped, (row, column) in zip(
        padded, crop(images, 2, places), places.tolist(), strict=True
    ):
        assert torch.equal(cropped, image[row : row + 5, column : column + 6])


def test_crops_begin_at_every_place_of_the_padded_image() -> None:
    # One white pixel in the middle shows how far its image has moved.
    image = torch.zeros(1, 5, 5, 1, dtype=torch.uint8)
    image[0, 2, 2] = 255
    images = image.expand(400, -1, -1, -1).contiguous()
    dataset = small(
        train_images=images,
        train_labels=torch.zeros(400, dtype=torch.int64),
        mean=(0.0,),
        std=(1.0,),
        crop_padding=2,
    )
    moved, _ = next(dataset.train_batches(400, seeded()))
    assert torch.equal(moved.flatten(1).sum(1), torch.ones(400))
    assert len(moved.flatten(1).argmax(1).unique()) == 25


def test_images_are_padded_before_they_are_normalised_so_with_black() -> None:
    dataset = small(
        train_images=torch.full((50, 4, 4, 3), 255, dtype=torch.uint8),
        train_labels=torch.zeros(50, dtype=torch.int64),
        crop_padding=4,
    )
    images, _ = next(dataset.train_batches(50, seeded()))
    assert images[:, 0].unique().tolist() == [-1.0, 1.0]
    assert images[:, 1].unique().tolist() == [-2.0, 2.0]


def test_a_mirrored_image_is_mirrored_as_a_whole_and_no_other_changes() -> None:
    images = torch.randint(0, 256, (3, 3, 4, 2), dtype=torch.uint8)
    flipped = flip(images, torch.tensor([True, False, True]))
    assert torch.equal(flipped[1], images[1])
    assert torch.equal(flipped[::2], images[::2].flip(2))


def test_about_half_of_the_images_are_mirrored() -> None:
    image = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1)
    dataset = small(
        train_images=image.expand(200, -1, -1, -1).contiguous(),
        train_labels=torch.zeros(200, dtype=torch.int64),
        mean=(0.0,),
        std=(1.0,),
        is_flipped=True,
    )
    images, _ = next(dataset.train_batches(200, seeded()))
    assert 70 < int(images[:, 0, 0, 0].sum()) < 130


@pytest.mark.parametrize("asked", [None, 32])
def test_the_own_size_or_none_is_accepted(asked: int | None) -> None:
    check_image_size("this", asked, 32)


def test_another_size_is_refused_in_one_line() -> None:
    with pytest.raises(DatasetError, match="this has images of 32×32 pixels, and 64 was asked"):
        check_image_size("this", 64, 32)
