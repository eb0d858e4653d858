"""A data set small enough to train a ResNet-20 on in a second."""

from collections.abc import Callable, Iterator

import pytest
import torch

from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.training.recipe import Recipe


@pytest.fixture(scope="session")
def tiny() -> ImagesInMemory:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 8, 8, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(24) % 3
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=1e-3)
    return ImagesInMemory(
        name="tiny",
        num_classes=3,
        fp32_recipe=recipe,
        binary_recipe=recipe,
        train_images=images,
        train_labels=labels,
        test_images=images[:12],
        test_labels=labels[:12],
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        crop_padding=1,
        is_flipped=True,
    )


@pytest.fixture(scope="session")
def fill_disk_after() -> Callable[[pytest.MonkeyPatch, int], None]:
    """Let the given number of files be written, and fail the next ones as a full disk does."""
    import errno
    import os

    def fill(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
        left = [files]

        def fsync(_: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("bibench_train.training.atomic.os.fsync", fsync)

    return fill


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small networks are no faster on more threads, and far slower where the cores are shared."""
    if request.node.get_closest_marker("slow"):
        yield
        return
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
