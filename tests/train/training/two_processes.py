"""What test_world.py runs under torchrun, in two processes and in one.

`two_processes.py OUT ALGORITHM [EPOCHS]`: resumes a run that is there; stops after so many epochs.

In double precision: Hardtanh and sign switch gradients on and off at a threshold, so in single
precision a rounding error at one threshold soon becomes another network.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from bibench_train.datasets._dataset import WHOLE, Batch, ImagesInMemory, Shard
from bibench_train.layers import binary_layers
from bibench_train.training import Progress, Recipe, RunInfo, checkpoint, train


class DoubleImages(ImagesInMemory):
    def train_batches(
        self, batch_size: int, generator: torch.Generator, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        for images, labels in super().train_batches(batch_size, generator, shard):
            yield images.double(), labels

    def test_batches(self, batch_size: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        for images, labels in super().test_batches(batch_size, shard):
            yield images.double(), labels


class StopsAfter(Progress):
    """Ends the process without ado, as a kill does, once so many epochs are done."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def step(self, epoch: int, loss: float) -> None:
        if epoch == self.epochs:
            os._exit(9)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    # 21 images in batches of 5: the last batch has one, so one of two processes gets none.
    images = torch.randint(0, 256, (21, 8, 8, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(21) % 3
    recipe = Recipe(
        epochs=2, batch_size=5, learning_rate=0.01, optimizer="sgd", label_smoothing=0.1
    )
    dataset = DoubleImages(
        name="made",
        num_classes=3,
        fp32_recipe=recipe,
        binary_recipe=recipe,
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        crop_padding=1,
        is_flipped=True,
    )
    build_model = checkpoint.build_model

    def build_double(info: RunInfo) -> nn.Module:
        model = build_model(info).double()
        with torch.no_grad():
            for _, layer in binary_layers(model):
                for parameter in layer.binarizer.parameters():
                    # Sums of ±1 often equal their mean; the sign of such a zero is rounding's.
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    checkpoint.build_model = build_double
    out = Path(sys.argv[1])
    is_resumed = out.exists()
    stops_after = int(sys.argv[3]) if len(sys.argv) > 3 else recipe.epochs
    progress = StopsAfter(recipe.epochs if is_resumed else stops_after)
    train(
        dataset=dataset,
        algorithm=sys.argv[2],
        out=out,
        is_resumed=is_resumed,
        progress=progress,
    )


if __name__ == "__main__":
    main()
