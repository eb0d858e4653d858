"""TensorBoard event files, for those who ask for them: the same figures as metrics.csv."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from bibench_train.errors import MissingPackageError
from bibench_train.training.metrics import EpochMetrics

FOLDER = "tensorboard"


class TensorBoard:
    """Writes one scalar per figure and epoch under `<run folder>/tensorboard`.

    Nothing is written before the first epoch is done.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """

    def __init__(self, out: Path) -> None:
        # TensorBoard's own switch: without it, it loads all of TensorFlow where that is installed.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError("--tensorboard", "tensorboard", "tensorboard") from error
        self._make_writer = SummaryWriter
        self._folder = out / FOLDER
        self._writer: Any = None

    def add(self, metrics: EpochMetrics) -> None:
        """Write one epoch."""
        values = asdict(metrics)
        epoch = values.pop("epoch")
        if self._writer is None:
            # What a killed run wrote of this epoch and later ones is hidden.
            self._writer = self._make_writer(str(self._folder), purge_step=epoch)
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
