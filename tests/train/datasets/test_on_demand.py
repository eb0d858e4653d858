import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
import torch

from bibench_train.datasets import _on_demand
from bibench_train.datasets._dataset import WHOLE, Batch, Shard
from bibench_train.datasets._on_demand import ImagesOnDemand, Item
from bibench_train.errors import DatasetError
from bibench_train.training.recipe import Recipe

TRAIN_SIZE, TEST_SIZE = 22, 5


@dataclass(frozen=True, kw_only=True)
class Numbers(ImagesOnDemand):
    """Images of one pixel: a random number, its index, and what `third` says."""

    name: str = "numbers"
    num_classes: int = TRAIN_SIZE
    fp32_recipe: Recipe = Recipe()  # noqa: RUF009 - frozen
    binary_recipe: Recipe = Recipe()  # noqa: RUF009 - frozen
    workers: int | None = 0
    third: Callable[[int], float] = float

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 3, 1, 1

    @property
    def train_size(self) -> int:
        return TRAIN_SIZE

    @property
    def test_size(self) -> int:
        return TEST_SIZE

    def train_item(self, index: int, draw: int) -> Item:
        drawn = Random(draw << 32 | index).random()  # noqa: S311 - no secret
        values = [drawn, index, self.third(index)]
        return torch.tensor(values, dtype=torch.float32)[:, None, None], index

    def test_item(self, index: int) -> Item:
        return self.train_item(index, 0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def epoch(dataset: ImagesOnDemand, seed: int = 0, shard: Shard = WHOLE) -> list[Batch]:
    return list(dataset.train_batches(4, seeded(seed), shard))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for (images, labels), (images_2, labels_2) in zip(one, other, strict=True):
        assert torch.equal(images, images_2)
        assert torch.equal(labels, labels_2)


def threads_of(_: int) -> float:
    return torch.get_num_threads()


def process_of(_: int) -> float:
    return os.getpid()


def damaged_at_three(index: int) -> float:
    if index == 3:
        raise DatasetError("three is damaged")
    return 0.0


def wrong_at_three(index: int) -> float:
    return 1 / (index - 3)


def killed(_: int) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def slow(_: int) -> float:
    time.sleep(0.05)
    return 0.0


def test_an_epoch_gives_each_image_once_with_its_label() -> None:
    batches = epoch(Numbers())
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 2]
    assert len(batches) == Numbers().steps_per_epoch(4)
    labels = torch.cat([labels for _, labels in batches])
    assert labels.dtype == torch.int64
    assert sorted(labels.tolist()) == list(range(TRAIN_SIZE))
    assert labels.tolist() != list(range(TRAIN_SIZE))
    assert torch.equal(torch.cat([images for images, _ in batches])[:, 1, 0, 0], labels.float())


def test_the_test_split_comes_in_order() -> None:
    batches = list(Numbers().test_batches(2))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2, 3], [4]]


def test_one_seed_gives_one_epoch_and_another_seed_another() -> None:
    assert_same(epoch(Numbers(), 1), epoch(Numbers(), 1))
    first, second = (torch.cat([x for x, _ in epoch(Numbers(), seed)]) for seed in (1, 2))
    by_index = [images[images[:, 1, 0, 0].argsort()][:, 0] for images in (first, second)]
    assert not torch.equal(first[:, 1], second[:, 1])
    assert not (by_index[0] == by_index[1]).any()


def test_workers_change_no_bit() -> None:
    assert_same(epoch(Numbers()), epoch(Numbers(workers=2)))
    assert_same(list(Numbers().test_batches(2)), list(Numbers(workers=2).test_batches(2)))


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_put_together_are_the_whole_epoch(workers: int) -> None:
    shards = [epoch(Numbers(workers=workers), shard=Shard(i, 3)) for i in range(3)]
    # The last batch has two images, so that the third shard has none of them.
    assert [len(shard[-1][1]) for shard in shards] == [1, 1, 0]
    assert shards[2][-1][0].shape == (0, 3, 1, 1)
    for index, shard in enumerate(shards):
        whole = [(images[index::3], labels[index::3]) for images, labels in epoch(Numbers())]
        assert_same(shard, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(workers: int) -> None:
    before = torch.get_rng_state()
    epoch(Numbers(workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_come_in_channels_last_memory_from_workers_too() -> None:
    class Wide(Numbers):
        def train_item(self, index: int, draw: int) -> Item:
            return torch.zeros(3, 4, 5), 0

    for workers in (0, 1):
        images, _ = next(Wide(workers=workers).train_batches(2, seeded()))
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_workers_are_processes_of_one_thread() -> None:
    torch.set_num_threads(2)  # the fixture of this folder puts it back
    threads = torch.cat([x[:, 2] for x, _ in epoch(Numbers(workers=2, third=threads_of))])
    assert threads.unique().tolist() == [1]
    processes = torch.cat([x[:, 2] for x, _ in epoch(Numbers(workers=2, third=process_of))])
    assert len(processes.unique()) == 2
    assert float(os.getpid()) not in processes
    here = torch.cat([x[:, 2] for x, _ in epoch(Numbers(third=process_of))])
    assert here.unique().tolist() == [float(os.getpid())]


@pytest.mark.parametrize("is_dropped", [True, False])
def test_workers_end_with_the_epoch_and_when_it_is_left_early(is_dropped: bool) -> None:
    batches = Numbers(workers=2).train_batches(4, seeded())
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    if is_dropped:
        del batches
    else:
        list(batches)
    assert multiprocessing.active_children() == []


def test_workers_end_with_the_last_batch_though_nobody_asks_for_another() -> None:
    dataset = Numbers(workers=2)
    batches = dataset.train_batches(4, seeded())
    last = [next(batches) for _ in range(dataset.steps_per_epoch(4))][-1]
    assert multiprocessing.active_children() == []
    assert torch.equal(last[0], epoch(Numbers())[-1][0])


def test_the_child_signal_handler_of_the_program_stays() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    epoch(Numbers(workers=1))
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_line_and_ends_the_workers(workers: int) -> None:
    with pytest.raises(DatasetError) as caught:
        epoch(Numbers(workers=workers, third=damaged_at_three))
    assert str(caught.value) == "three is damaged"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_own_code_keeps_its_trace(workers: int) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        epoch(Numbers(workers=workers, third=wrong_at_three))
    names = [entry.name for entry in caught.traceback]
    assert "wrong_at_three" in names or "in wrong_at_three" in str(caught.value)


@pytest.mark.slow  # torch looks for dead workers every five seconds
def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(DatasetError, match="a process that reads images of numbers was killed"):
        epoch(Numbers(workers=1, third=killed))


def test_a_data_set_can_be_sent_to_a_spawned_worker() -> None:
    dataset = Numbers(third=damaged_at_three)
    assert pickle.loads(pickle.dumps(dataset)) == dataset  # noqa: S301 - our own, of this line


Usage = namedtuple("Usage", "free")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def be(cores: int, free: int = 1 << 40, processes: int = 1) -> None:
        monkeypatch.setattr(_on_demand, "available_cores", lambda: cores)
        monkeypatch.setattr(_on_demand, "SHARED_MEMORY", Path("/"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))

    return be


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, 1, 1), (6, 1, 6), (64, 1, 16), (8, 2, 4), (2, 4, 1)]
)
def test_there_is_a_worker_for_each_core_of_this_process(
    machine: Callable[..., None], cores: int, processes: int, workers: int
) -> None:
    machine(cores, processes=processes)
    assert _on_demand._worker_count(1) == workers


@pytest.mark.parametrize(("batches_that_fit", "workers"), [(3, 0), (4, 1), (12, 3), (100, 6)])
def test_no_more_workers_than_shared_memory_holds_batches_for(
    machine: Callable[..., None], batches_that_fit: int, workers: int
) -> None:
    machine(6, free=1000 * batches_that_fit)
    assert _on_demand._worker_count(1000) == workers


def test_the_number_of_workers_is_chosen_or_given(machine: Callable[..., None]) -> None:
    machine(2)
    chosen = Numbers(workers=None, third=process_of)
    assert len(torch.cat([x[:, 2] for x, _ in epoch(chosen)]).unique()) == 2
    machine(1)
    given = replace(chosen, workers=3)
    assert len(torch.cat([x[:, 2] for x, _ in epoch(given)]).unique()) == 3


PROGRAM = """
import sys
from tests.train.datasets.test_on_demand import Numbers, seeded, slow
try:
    for batch in Numbers(workers=2, third=slow).train_batches(2, seeded()):
        print("ready", flush=True)
        for _ in range(1000):
            __import__("time").sleep(0.01)
except KeyboardInterrupt:
    sys.exit(130)
"""


def group_ends_within(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        # A killed program ends nothing; its workers look for it every five seconds.
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_program_leaves_no_worker_and_no_word(
    number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to every process of the group
    else:
        process.send_signal(number)
    assert process.wait(20) == code
    assert group_ends_within(process.pid, 20)
    assert process.communicate()[1] == b""
