"""The processes that train one model together, under torchrun; or the one process that does."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bibench_train.datasets._dataset import Shard
from bibench_train.training.synchronized_batch_norm import SynchronizedBatchNorm


@dataclass(frozen=True)
class World:
    """What one process knows of the others; the default is a process by itself."""

    rank: int = 0
    """Of this process; rank 0 writes and prints."""
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """The part of each batch that this process works on."""
        return Shard(self.rank, self.size)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, element by element."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wait_for_all(self) -> None:
        """Return once every process has come this far."""
        if self.size > 1:
            dist.barrier()

    def distribute(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The module to call in a training step: averages gradients over the processes.

        Batch norms of `model` itself are made to take their statistics over the whole batch, so
        that several processes train as one would.
        """
        if self.size == 1:
            return model
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch gives it no types
            return nn.parallel.DistributedDataParallel(model, device_ids=[device.index])
        SynchronizedBatchNorm.convert(model)
        return nn.parallel.DistributedDataParallel(model)


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the other processes that torchrun started, or those of a group that exists already."""
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda":
            # Else every process would meet the others on the first GPU.
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        try:
            yield World(dist.get_rank(), dist.get_world_size())
        finally:
            # Module wrappers that outlive their group hang when they are freed.
            gc.collect()
            dist.destroy_process_group()
    else:
        yield World()
