"""Images that are read one by one when they are needed, ahead of time, by worker processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import data

from bibench_train.datasets._dataset import WHOLE, Batch, Dataset, Shard
from bibench_train.errors import DatasetError
from bibench_train.threads import available_cores

Item = tuple[Tensor, int]
"""An image and its label."""

MAX_WORKERS = 16
PREFETCHED_BATCHES = 2
"""Of each worker."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps what processes share


class ImagesOnDemand(Dataset):
    """A data set that says how to read one image; this class makes batches of them.

    Processes of their own read ahead of the training step. An image's random choices come from the
    epoch and its index alone: neither the number of workers nor the shard changes a bit of it.

    The workers are forked on Linux. Where Python spawns them (macOS), a script that trains needs
    its `if __name__ == "__main__":`.

    Attributes:
        workers: Processes that read images; 0 reads them in this one. None takes one for each core
            at hand, up to 16, and fewer where shared memory (/dev/shm) would not hold what they
            have ready.
    """

    workers: int | None

    @property
    @abstractmethod
    def test_size(self) -> int:
        """Images in the test split."""

    @abstractmethod
    def train_item(self, index: int, draw: int) -> Item:
        """A training image, augmented.

        Args:
            index: 0 to `train_size` - 1.
            draw: A number of the epoch; with `index` it decides every random choice.

        Raises:
            DatasetError: The image cannot be read or is of another form.
        """

    @abstractmethod
    def test_item(self, index: int) -> Item:
        """A test image; as `train_item`."""

    def stack(self, images: Sequence[Tensor]) -> Tensor:
        """The images of items, at least one, as a batch [N, C, H, W]."""
        return torch.stack(list(images)).contiguous(memory_format=torch.channels_last)

    def train_batches(
        self, batch_size: int, generator: torch.Generator, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        """One shuffled, augmented epoch."""
        order = torch.randperm(self.train_size, generator=generator)
        draw = int(torch.randint(2**62, (), generator=generator))
        return self._batches(partial(self.train_item, draw=draw), order, batch_size, shard)

    def test_batches(self, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """The test split, in order."""
        return self._batches(self.test_item, torch.arange(self.test_size), batch_size, shard)

    def _batches(
        self, read: Callable[[int], Item], order: Tensor, batch_size: int, shard: Shard
    ) -> Iterator[Batch]:
        batches = torch.split(order, batch_size)
        workers = self.workers
        if workers is None:
            batch_bytes = 4 * len(shard.of(batches[0])) * torch.Size(self.input_shape).numel()
            workers = min(_worker_count(batch_bytes), len(batches))
        with _quiet_start():
            iterator = iter(
                data.DataLoader(
                    _Items(read, len(order)),
                    batch_sampler=(shard.of(batch).tolist() for batch in batches),
                    num_workers=workers,
                    collate_fn=self._collate,
                    prefetch_factor=PREFETCHED_BATCHES if workers else None,
                    worker_init_fn=_start_worker,
                    # The loader draws a number for itself: not from the caller's generator.
                    generator=torch.Generator(),
                )
            )
        try:
            for number, batch in enumerate(iterator, 1):
                if isinstance(batch, DatasetError):
                    raise batch
                if number == len(batches):
                    # Now: who counts the batches never asks for one more.
                    _end_workers(iterator)
                yield batch
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise DatasetError(
                f"a process that reads images of {self.name} was killed; often memory or "
                f"{SHARED_MEMORY} is full: train with a smaller batch, or with fewer workers"
            ) from error
        finally:
            # An exception on its way keeps the iterator alive, and the iterator its workers.
            _end_workers(iterator)

    def _collate(self, items: Sequence[Item | DatasetError]) -> Batch | DatasetError:
        images, labels = [], []
        for item in items:
            if isinstance(item, DatasetError):
                return item
            images.append(item[0])
            labels.append(item[1])
        stacked = self.stack(images) if images else torch.empty(0, *self.input_shape)
        return stacked, torch.tensor(labels, dtype=torch.int64)


class _Items(data.Dataset[Item | DatasetError]):
    def __init__(self, read: Callable[[int], Item], size: int) -> None:
        self.read = read
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Item | DatasetError:
        try:
            return self.read(index)
        except DatasetError as error:
            # Returned, since an exception of a worker arrives as a page of traces.
            return error


def _start_worker(_: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main one ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_workers(iterator: object) -> None:
    if isinstance(iterator, data.dataloader._MultiProcessingDataLoaderIter):
        iterator._shutdown_workers()


def _worker_count(batch_bytes: int) -> int:
    # Processes that torchrun started on this machine share its cores and its memory.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = min(max(available_cores() // processes, 1), MAX_WORKERS)
    if SHARED_MEMORY.is_dir():
        # A container often has 64 MiB, and a worker that finds it full is killed.
        free = shutil.disk_usage(SHARED_MEMORY).free // 2 // processes
        workers = min(workers, free // (batch_bytes * PREFETCHED_BATCHES))
    return workers


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD)
    with warnings.catch_warnings():
        # Of more workers than cores, and of threads beside a fork; both are meant.
        warnings.simplefilter("ignore")
        yield
    # torch's handler raises wherever the program is when a worker is killed. Without it the next
    # batch raises, which is where the error gets its message.
    if is_main and handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
        signal.signal(signal.SIGCHLD, handler)
