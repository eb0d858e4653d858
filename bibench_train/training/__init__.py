"""Training: the loop, evaluation, checkpoints, recipes, seeds.

from bibench_train.training import load_run, train

run = train(architecture="resnet20", algorithm="bireal", dataset="digits", out=Path("runs/a"))
model, info = load_run(run.run_dir)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bibench_train.training.checkpoint import load_run
    from bibench_train.training.evaluation import Accuracy, evaluate
    from bibench_train.training.loop import penalty, start_epoch
    from bibench_train.training.progress import Progress, stderr_progress
    from bibench_train.training.recipe import Recipe
    from bibench_train.training.run import TrainedRun, train
    from bibench_train.training.run_info import RunInfo, read_run

__all__ = [
    "Accuracy",
    "Progress",
    "Recipe",
    "RunInfo",
    "TrainedRun",
    "evaluate",
    "load_run",
    "penalty",
    "read_run",
    "start_epoch",
    "stderr_progress",
    "train",
]

_HOME = {
    "Accuracy": "evaluation",
    "Progress": "progress",
    "Recipe": "recipe",
    "RunInfo": "run_info",
    "TrainedRun": "run",
    "evaluate": "evaluation",
    "load_run": "checkpoint",
    "penalty": "loop",
    "read_run": "run_info",
    "start_epoch": "loop",
    "stderr_progress": "progress",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    # On first use: a data set needs the recipe alone, and the loop needs the data sets.
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
