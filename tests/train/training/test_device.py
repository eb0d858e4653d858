import random

import numpy as np
import pytest
import torch

from bibench_train.errors import DeviceError
from bibench_train.training.device import peak_memory_mib, pick_device, reproducible


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("cuda") == torch.device("cuda", 1)
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match="process 2 of this machine has no GPU of its own"):
        pick_device()


def test_a_gpu_that_is_not_there_is_said_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="finds no GPU; train with --device cpu"):
        pick_device("cuda")


def test_another_name_is_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="device is one of auto, cpu, cuda"):
        pick_device("tpu")


def test_the_generators_outside_are_left_alone() -> None:
    def seed() -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)

    def draw() -> list[float]:
        return [torch.rand(1).item(), random.random(), np.random.rand()]  # noqa: S311 - this is what is tested

    seed()
    expected = draw()
    seed()
    with reproducible(torch.device("cpu")):
        draw()
        assert torch.backends.cudnn.deterministic
    assert draw() == expected


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory_mib(torch.device("cpu"))
    held = torch.ones(2**20 * 64)  # 256 MiB
    assert peak_memory_mib(torch.device("cpu")) >= before
    assert peak_memory_mib(torch.device("cpu")) >= held.nbytes / 2**20
