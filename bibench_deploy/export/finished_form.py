"""The network that a training run will end with, before it begins: what lint can judge of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.export.pipeline import write_onnx
from bibench_deploy.export.source import from_module
from bibench_deploy.lint.runner import LintResult, lint_file
from bibench_deploy.targets._target import Target

if TYPE_CHECKING:
    from bibench_train.datasets import Dataset

# Far from what parameters begin with: a shift of 0 and a scale of 1 are no shift and no scale.
_SPREAD = 0.1


def lint_finished_form(
    architecture: str,
    algorithm: str,
    dataset: Dataset,
    epochs: int,
    targets: Sequence[Target],
) -> tuple[LintResult, ...]:
    """What lint will say of a network at the end of its schedule; its weights do not matter.

    torch's random numbers are left as they were.
    """
    import torch

    from bibench_train import architectures
    from bibench_train.layers import binary_layers

    channels, height, width = dataset.input_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures.build(
            architecture,
            algorithm=algorithm,
            num_classes=dataset.num_classes,
            in_channels=channels,
            form=architectures.form_for(architecture, height),
            image_size=(height, width),
        )
        with torch.no_grad():
            for _, layer in binary_layers(model):
                layer.binarizer.start_epoch(epochs - 1, epochs)
                for parameter in layer.binarizer.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=_SPREAD)
        source = from_module(model, (1, channels, height, width), architecture)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(source, path)
            return lint_file(path, targets)
