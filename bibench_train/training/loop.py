"""The training loop: from names and a recipe to a run folder."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_train import algorithms, architectures, datasets
from bibench_train.algorithms._algorithm import Binarizer
from bibench_train.datasets._dataset import Dataset
from bibench_train.errors import CheckpointError, TrainingStoppedError
from bibench_train.layers import binary_layers
from bibench_train.threads import use_available_cores
from bibench_train.training import checkpoint
from bibench_train.training.atomic import write_atomically
from bibench_train.training.evaluation import evaluate
from bibench_train.training.progress import EpochMetrics, Progress
from bibench_train.training.recipe import Recipe, cosine_learning_rate
from bibench_train.training.run_info import RunInfo
from bibench_train.training.seeding import seed_epoch

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class TrainedRun:
    """A finished run."""

    run_dir: Path
    info: RunInfo
    """As in run.json."""
    accuracy: float
    """Percent of the test split, after the last epoch."""
    seconds: float
    """Of this call, data and evaluation included."""


def train(
    *,
    architecture: str = "resnet20",
    algorithm: str = "reactnet",
    dataset: str | Dataset = "digits",
    out: Path,
    init: Path | None = None,
    recipe: Recipe | None = None,
    is_resumed: bool = False,
    data: Path | None = None,
    options: dict[str, object] | None = None,
    progress: Progress | None = None,
) -> TrainedRun:
    """Train a model into the folder `out`; one recipe gives one result, to the bit, on one machine.

    Sets torch's thread count to the cores at hand; leaves the caller's random generators alone.

    Args:
        architecture: One of `architectures.names()`.
        algorithm: One of `algorithms.names()`, or "fp32".
        dataset: One of `datasets.names()`, or a `Dataset`.
        out: The run folder: new or empty, unless the run is resumed.
        init: A run of the same architecture to take the weights from, usually an FP32 one.
        recipe: None takes the data set's own for float or for binarized networks; a resumed run
            keeps the recipe it began with.
        is_resumed: Continue the run in `out` after its last whole epoch.
        data: The folder the data set lies in.
        options: The architecture's own options, such as `downsample`.
        progress: Told of every step and epoch; None is silent.

    Returns:
        The run, whose folder `load_run` reads.

    Raises:
        UnknownNameError: A name of nothing.
        DatasetError: The data is missing or damaged.
        CheckpointError: `out` is taken, `init` does not fit, or there is nothing to resume.
        TrainingStoppedError: The loss is no longer a number; the last whole epoch is kept.
    """
    begun_at = time.perf_counter()
    algorithms.check(algorithm)
    architectures.load(architecture)
    data_set = datasets.load(dataset, data) if isinstance(dataset, str) else dataset
    use_available_cores()
    with torch.random.fork_rng(devices=[]):
        if is_resumed:
            info, tensors = checkpoint.load_resume(out)
            _check_same_run(info, architecture, algorithm, data_set.name, recipe, out)
        else:
            _check_free(out)
            info = _plan(architecture, algorithm, data_set, out, init, recipe, dict(options or {}))
            tensors = {}
        torch.manual_seed(info.recipe.seed)
        model = checkpoint.build_model(info)
        info = replace(info, parameters=sum(p.numel() for p in model.parameters()))
        if init is not None and not is_resumed:
            checkpoint.load_init(model, info, init)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(model.parameters(), lr=info.recipe.learning_rate, fused=True)
        if is_resumed:
            checkpoint.restore(model, optimizer, info, tensors, out / checkpoint.RESUME_FILE)
        out.mkdir(parents=True, exist_ok=True)
        _keep_metrics(out, info.epochs_done)
        info = _run_epochs(model, optimizer, data_set, info, out, progress or Progress())
    accuracy = info.accuracy.percent if info.accuracy else math.nan
    return TrainedRun(out, info, accuracy, time.perf_counter() - begun_at)


def _run_epochs(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    info: RunInfo,
    out: Path,
    progress: Progress,
) -> RunInfo:
    epochs = info.recipe.epochs
    steps = dataset.steps_per_epoch(info.recipe.batch_size)
    progress.start(info.name, info.epochs_done, epochs, steps)
    try:
        for epoch in range(info.epochs_done, epochs):
            metrics, done = _run_epoch(model, optimizer, dataset, info, epoch, progress)
            # First, so that a kill in between leaves a line too many, which resuming drops.
            with (out / METRICS_FILE).open("a") as file:
                file.write(json.dumps(asdict(metrics)) + "\n")
            info = checkpoint.save(out, done, model, optimizer)
            progress.finish_epoch(metrics)
    except BaseException as error:
        _leave_nothing_unfinished(out)
        if isinstance(error, TrainingStoppedError):
            raise TrainingStoppedError(f"{error}; {kept(out, info.epochs_done)}") from None
        raise
    finally:
        progress.stop()
    return info


def _run_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    info: RunInfo,
    epoch: int,
    progress: Progress,
) -> tuple[EpochMetrics, RunInfo]:
    recipe = info.recipe
    steps_per_epoch = dataset.steps_per_epoch(recipe.batch_size)
    steps = recipe.epochs * steps_per_epoch
    generator = seed_epoch(recipe.seed, epoch)
    start_epoch(model, epoch, recipe.epochs)
    model.train()
    begun_at = time.perf_counter()
    loss_sum, correct, images = 0.0, 0, 0
    batches = dataset.train_batches(recipe.batch_size, generator)
    for step, (batch, labels) in enumerate(batches):
        rate = cosine_learning_rate(recipe, epoch * steps_per_epoch + step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(batch)
        loss = F.cross_entropy(logits, labels) + penalty(model)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingStoppedError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1} of "
                f"{steps_per_epoch}; try a learning rate below {recipe.learning_rate:g}"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += value * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        images += len(labels)
        progress.step(epoch, value)
    trained_seconds = time.perf_counter() - begun_at
    accuracy = evaluate(model, dataset)
    metrics = EpochMetrics(
        epoch=epoch + 1,
        loss=loss_sum / images,
        train_accuracy=round(100.0 * correct / images, 2),
        test_accuracy=accuracy.percent,
        learning_rate=cosine_learning_rate(recipe, epoch * steps_per_epoch, steps),
        seconds=round(time.perf_counter() - begun_at, 3),
        seconds_per_step=round(trained_seconds / steps_per_epoch, 5),
    )
    done = replace(
        info,
        epochs_done=epoch + 1,
        accuracy=accuracy,
        seconds_per_step=metrics.seconds_per_step,
    )
    return metrics, done


def start_epoch(model: nn.Module, epoch: int, epochs: int) -> None:
    """Let the algorithm in every binary layer move its schedule; `epoch` counts from 0."""
    for module in model.modules():
        if isinstance(module, Binarizer):
            module.start_epoch(epoch, epochs)


def penalty(model: nn.Module) -> Tensor | float:
    """What the algorithms add to the loss, summed over the binary layers; 0 for most of them."""
    total: Tensor | float = 0.0
    for _, layer in binary_layers(model):
        term = layer.binarizer.penalty(layer.weight)
        if term is not None:
            total = total + term
    return total


def kept(out: Path, epochs_done: int) -> str:
    """What is left of a run that stopped early, and how to go on, in one phrase."""
    if epochs_done == 0:
        return "no epoch was finished, so nothing was kept"
    return (
        f"epoch {epochs_done} is kept in {out}; continue with: bibench train --resume --out {out}"
    )


def _plan(
    architecture: str,
    algorithm: str,
    dataset: Dataset,
    out: Path,
    init: Path | None,
    recipe: Recipe | None,
    options: dict[str, object],
) -> RunInfo:
    if recipe is None:
        is_float = algorithm == algorithms.FP32
        recipe = dataset.fp32_recipe if is_float else dataset.binary_recipe
    form = architectures.form_for(architecture, dataset.input_shape[1])
    return RunInfo(
        name=out.resolve().name,
        architecture=architecture,
        architecture_options={"form": form} | options,
        algorithm=algorithm,
        dataset=dataset.name,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        init=None if init is None else _without_machine(init),
        recipe=recipe,
        parameters=0,
        versions={
            "bibench": version("bibench"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    )


def _without_machine(path: Path) -> str:
    # run.json is shipped with models: it names other runs, never folders of one person's machine.
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd()).as_posix()
    return path.resolve().name


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(
            f"{out} exists and is not empty; continue the run in it with --resume, or choose "
            "another --out"
        )


def _check_same_run(
    info: RunInfo,
    architecture: str,
    algorithm: str,
    dataset: str,
    recipe: Recipe | None,
    out: Path,
) -> None:
    asked = f"{architecture} {algorithm} on {dataset}"
    found = f"{info.architecture} {info.algorithm} on {info.dataset}"
    if asked != found:
        raise CheckpointError(f"{out} holds {found}, and {asked} was asked for; it cannot resume")
    if recipe is not None and recipe != info.recipe:
        changed = [
            f"{key} {value}"
            for key, value in asdict(info.recipe).items()
            if asdict(recipe)[key] != value
        ]
        raise CheckpointError(
            f"{out} was begun with {', '.join(changed)}; a resumed run keeps its recipe, so leave "
            "that option out, or start anew in another --out"
        )


def _keep_metrics(out: Path, epochs: int) -> None:
    path = out / METRICS_FILE
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        write_atomically(path, b"".join(lines[:epochs]))


def _leave_nothing_unfinished(out: Path) -> None:
    if not (out / checkpoint.RESUME_FILE).exists():
        (out / METRICS_FILE).unlink(missing_ok=True)
        # Not empty means that something else lies there, which is not ours to remove.
        with contextlib.suppress(OSError):
            out.rmdir()
