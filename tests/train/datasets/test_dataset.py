import torch

from bibench_train.datasets._dataset import ImagesInMemory, random_crop, random_flip
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
    return ImagesInMemory(**(arguments | changes))  # type: ignore[arg-type]


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


def test_every_crop_is_the_image_moved_within_the_padding() -> None:
    images = torch.randint(1, 256, (50, 5, 6, 2), dtype=torch.uint8)
    padded = torch.nn.functional.pad(images, (0, 0, 2, 2, 2, 2))
    seen = set()
    for image, crop in zip(padded, random_crop(images, 2, seeded()), strict=True):
        places = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(image[row : row + 5, column : column + 6], crop)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert {row for row, _ in seen} == {column for _, column in seen} == set(range(5))


def test_about_half_of_the_images_are_mirrored_each_as_a_whole() -> None:
    images = torch.randint(0, 256, (200, 3, 4, 2), dtype=torch.uint8)
    flipped = random_flip(images, seeded())
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(2)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 70 < int(mirrored.sum()) < 130
