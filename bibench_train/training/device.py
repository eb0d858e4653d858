"""Where a run computes: the CPU, or a CUDA GPU where there is one."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bibench_train.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda")


def pick_device(name: str = "auto") -> torch.device:
    """The device of this process.

    Args:
        name: "cpu", "cuda", or "auto" for a GPU where there is one. Under torchrun each process
            takes the GPU of its local rank.

    Raises:
        ValueError: Another name.
        DeviceError: "cuda" where torch finds no GPU, or fewer GPUs than processes.
    """
    if name not in DEVICES:
        raise ValueError(f'device is one of {", ".join(DEVICES)}, not "{name}"')
    is_there = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not is_there):
        return torch.device("cpu")
    if not is_there:
        raise DeviceError(
            f"device cuda was asked for, and this torch ({torch.__version__}) finds no GPU; train "
            "with --device cpu, or install a CUDA build of torch"
        )
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise DeviceError(
            f"process {index} of this machine has no GPU of its own: there are "
            f"{torch.cuda.device_count()}; start as many processes as GPUs"
        )
    return torch.device("cuda", index)


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Leave the caller's random generators alone, and let a GPU choose kernels that repeat."""
    devices = [device] if device.type == "cuda" else []
    pythons, numpys = random.getstate(), np.random.get_state()
    try:
        with (
            torch.random.fork_rng(devices=devices),
            torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled,
                benchmark=False,
                deterministic=True,
                allow_tf32=False,  # fp32 is said, so fp32 is computed
            ),
        ):
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)


def peak_memory_mib(device: torch.device) -> float:
    """The most memory so far: of the tensors on a GPU, or of this whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError):
        # Linux. The other source counts what a process was before it became this program.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
