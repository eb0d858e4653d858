"""Evaluation: how many images of a split a model gets right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from bibench_train.datasets._dataset import Dataset


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
def evaluate(model: nn.Module, dataset: Dataset, batch_size: int = 256) -> Accuracy:
    """Top-1 accuracy on the test split, in eval mode; leaves the model in the mode it was in.

    Args:
        model: [N, C, H, W] → logits [N, classes].
        dataset: Its test split is read once.
        batch_size: Changes speed and memory, not the result.
    """
    was_training = model.training
    model.eval()
    correct = images = 0
    for batch, labels in dataset.test_batches(batch_size):
        correct += int((model(batch).argmax(1) == labels).sum())
        images += len(labels)
    model.train(was_training)
    return Accuracy(correct, images)
