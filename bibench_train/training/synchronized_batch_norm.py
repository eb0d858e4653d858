"""Batch norm over a batch that several CPU processes share.

`nn.SyncBatchNorm` does this on GPUs and refuses to on CPUs. With statistics of its own part alone,
each process would train another network than one process does with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of all processes' inputs together.

    In eval mode it is an ordinary batch norm; parameters and buffers have the usual names.
    """

    @classmethod
    def convert(cls, model: nn.Module) -> None:
        """Make every batch norm inside `model` one of these, with the tensors it has."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = cls

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - the base class calls it so
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [N, C, ...], got {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class calls it so
        """[N, C, ...] of this process → the same shape, normalised over all processes."""
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        # A process whose part of the last batch is empty takes part all the same.
        own = input.shape.numel() / input.shape[1]
        # As any batch norm: statistics of 16-bit values are kept in 32 bits.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        sums = _total(torch.cat([values.sum(axes), values.new_tensor([own])]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance = _total(centred.square().sum(axes)) / count
        with torch.no_grad():
            self._update(mean, variance * (count / (count - 1)))
        output: Tensor = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> Tensor:
        # The sum feeds the loss of every process, so each gets what all of them send back.
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _total(values: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow back to each."""
    total: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]  # torch gives it no types
    return total
