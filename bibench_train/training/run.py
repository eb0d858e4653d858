"""A training run: from names and a recipe to a run folder."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from bibench_train import algorithms, architectures, datasets
from bibench_train.datasets._dataset import Dataset
from bibench_train.errors import CheckpointError, DatasetError
from bibench_train.threads import use_available_cores
from bibench_train.training import checkpoint, metrics
from bibench_train.training.device import pick_device, reproducible
from bibench_train.training.loop import Loop
from bibench_train.training.optimizer import make_optimizer
from bibench_train.training.progress import Progress
from bibench_train.training.recipe import Recipe
from bibench_train.training.run_info import RunInfo
from bibench_train.training.tensorboard import TensorBoard
from bibench_train.training.world import join_world


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
    device: str = "auto",
    is_compiled: bool = False,
    has_tensorboard: bool = False,
) -> TrainedRun:
    """Train a model into the folder `out`; one recipe gives one result, to the bit, on one machine.

    Under torchrun the processes train one model together: each takes its part of every batch, batch
    norms see the whole batch, and rank 0 writes the folder.

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
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        is_compiled: Run training steps through `torch.compile`; evaluation stays as it is.
        has_tensorboard: Write TensorBoard event files too.

    Returns:
        The run, whose folder `load_run` reads.

    Raises:
        UnknownNameError: A name of nothing.
        DatasetError: The data is missing or damaged.
        CheckpointError: `out` is taken, `init` does not fit, or there is nothing to resume.
        DeviceError: There is no such GPU.
        MissingPackageError: TensorBoard is not installed.
        TrainingStoppedError: The loss is no longer a number, memory ran out, or torch could not
            compile the model; the last whole epoch is kept.
    """
    begun_at = time.perf_counter()
    algorithms.check(algorithm)
    architectures.load(architecture)
    data_set = datasets.load(dataset, data) if isinstance(dataset, str) else dataset
    threads = use_available_cores()
    place = pick_device(device)
    with reproducible(place), join_world(place) as world:
        if is_resumed:
            info, tensors = checkpoint.load_resume(out)
            _check_same_run(info, architecture, algorithm, data_set, recipe, out)
        else:
            _check_free(out)
            info = _plan(architecture, algorithm, data_set, out, init, recipe, dict(options or {}))
            tensors = {}
        # Before rank 0 makes the folder, every process must have seen that it is free.
        world.wait_for_all()
        torch.manual_seed(info.recipe.seed)
        model = checkpoint.build_model(info)
        info = replace(
            info,
            parameters=sum(p.numel() for p in model.parameters()),
            device=torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
            threads=threads,
            processes=world.size,
            is_compiled=is_compiled,
        )
        if init is not None and not is_resumed:
            checkpoint.load_init(model, info, init)
        model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack this form
        optimizer = make_optimizer(model, info.recipe)
        if is_resumed:
            checkpoint.restore(model, optimizer, info, tensors, out / checkpoint.RESUME_FILE)
        tensorboard = TensorBoard(out) if has_tensorboard else None
        with _taken(out) if world.is_main else contextlib.nullcontext():
            if world.is_main and is_resumed:
                checkpoint.complete(out, info, tensors)
                metrics.keep(out, info.epochs_done)
            elif world.is_main:
                # Once more: another training may have begun in it since.
                _check_free(out)
                metrics.remove(out)
                out.mkdir(exist_ok=True)
            info = Loop(
                out=out,
                dataset=data_set,
                model=model,
                optimizer=optimizer,
                info=info,
                world=world,
                progress=progress or Progress(),
                tensorboard=tensorboard,
            ).run()
    accuracy = info.accuracy.percent if info.accuracy else math.nan
    return TrainedRun(out, info, accuracy, time.perf_counter() - begun_at)


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
    pixels = architectures.load(architecture).image_size
    if pixels is not None and dataset.input_shape[1:] != (pixels, pixels):
        height, width = dataset.input_shape[1:]
        raise DatasetError(
            f"{architecture} takes images of {pixels}×{pixels} pixels, and {dataset.name} has "
            f"{height}×{width}; choose another image size or another architecture"
        )
    form = architectures.form_for(architecture, dataset.input_shape[1])
    return RunInfo(
        name=out.resolve().name,
        architecture=architecture,
        architecture_options={"form": form} | options,
        algorithm=algorithm,
        dataset=dataset.name,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        train_images=dataset.train_size,
        init=None if init is None else _without_machine(init),
        recipe=recipe,
        parameters=0,
        versions={
            "bibench": version("bibench"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": version("numpy"),
        },
    )


def _without_machine(path: Path) -> str:
    # run.json is shipped with models: it names other runs, never folders of one person's machine.
    with contextlib.suppress(ValueError):
        return path.resolve().relative_to(Path.cwd()).as_posix()
    return path.resolve().name


@contextlib.contextmanager
def _taken(out: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder; the lock ends with this process in any case."""
    # Beside the folder, also where that is named "."
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"{out} is being trained by another process; wait for it, or choose another --out"
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _check_free(out: Path) -> None:
    # Metrics alone are what a kill in the first epoch left.
    leftovers = {metrics.CSV_FILE, metrics.JSONL_FILE}
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - leftovers):
        raise CheckpointError(
            f"{out} exists and is not empty; continue the run in it with --resume, or choose "
            "another --out"
        )


def _check_same_run(
    info: RunInfo,
    architecture: str,
    algorithm: str,
    dataset: Dataset,
    recipe: Recipe | None,
    out: Path,
) -> None:
    asked = f"{architecture} {algorithm} on {dataset.name}"
    found = f"{info.architecture} {info.algorithm} on {info.dataset}"
    if asked != found:
        raise CheckpointError(f"{out} holds {found}, and {asked} was asked for; it cannot resume")
    begun = f"{info.train_images} images of {info.input_shape} in {info.num_classes} classes"
    now = f"{dataset.train_size} images of {dataset.input_shape} in {dataset.num_classes} classes"
    if info.train_images is not None and begun != now:
        raise CheckpointError(
            f"{out} was begun on {begun}, and {dataset.name} has {now} now; give it the data it "
            "was begun on"
        )
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
