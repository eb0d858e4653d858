"""Every error that bibench_train raises on purpose.

    TrainError
    ├── UnknownNameError      a name of no algorithm, architecture or data set
    ├── DatasetError          data that is missing, damaged or of another form
    ├── CheckpointError       a checkpoint that is missing, damaged or of another model
    ├── NotBinaryError        a model whose algorithm has not reached -1 and +1 yet
    ├── DeviceError           a GPU that is not there
    ├── MissingPackageError   an optional package that is not installed
    └── TrainingStoppedError  a run that cannot go on (a loss that is not a number …)

The command line prints such an error as one line and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class TrainError(Exception):
    """Base of every error that this package raises on purpose."""


class UnknownNameError(TrainError):
    """A name that belongs to nothing here; lists the valid names and the nearest one."""

    def __init__(self, kind: str, name: str, valid: Sequence[str]) -> None:
        self.kind = kind
        self.name = name
        self.valid = tuple(valid)
        near = difflib.get_close_matches(name, self.valid, n=1)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        super().__init__(f'unknown {kind} "{name}"{hint}; one of: {", ".join(self.valid)}')


class DatasetError(TrainError):
    """A data set that is missing, damaged or not of the form its name promises."""


class CheckpointError(TrainError):
    """A run or checkpoint that is missing, damaged, or of another architecture or algorithm."""


class NotBinaryError(TrainError):
    """A model from which no strictly binary network can be made yet."""


class DeviceError(TrainError):
    """A device that was asked for and is not there."""


class MissingPackageError(TrainError):
    """An optional package that is not installed; names the extra that brings it."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        self.package = package
        super().__init__(
            f"{feature} needs {package}, which is not installed; run in a clone of bibench: "
            f'python -m pip install ".[{extra}]"'
        )


class TrainingStoppedError(TrainError):
    """A training run that cannot go on."""
