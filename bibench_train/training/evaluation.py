"""Evaluation: how many images of a split a model gets right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from bibench_train.datasets._dataset import Dataset
from bibench_train.training.world import World


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy as counts, so that nothing is lost to rounding."""

    correct: int
    images: int
    split: str = "test"

    @property
    def percent(self) -> float:
        """Rounded to two decimals, as tables print it.

        Example:
            >>> Accuracy(correct=356, images=360).percent
            98.89
        """
        return round(100.0 * self.correct / self.images, 2)


@torch.no_grad()
def evaluate(
    model: nn.Module, dataset: Dataset, batch_size: int = 256, world: World | None = None
) -> Accuracy:
    """Top-1 accuracy on the test split, in eval mode and fp32; leaves the model in its mode.

    Args:
        model: [N, C, H, W] → logits [N, classes].
        dataset: Its test split is read once.
        batch_size: Changes speed and memory, not the result.
        world: The processes that share the work; all of them get the whole result.
    """
    world = world or World()
    device = next(model.parameters(), torch.empty(0)).device
    was_training = model.training
    model.eval()
    # Counted on the device: reading a number of each batch would wait for it.
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    for images, labels in dataset.test_batches(batch_size, world.shard):
        predicted = model(images.to(device, non_blocking=True)).argmax(1)
        counts[0] += (predicted == labels.to(device, non_blocking=True)).sum()
        counts[1] += len(labels)
    model.train(was_training)
    correct, count = world.total(counts).tolist()
    return Accuracy(correct, count)
