"""`bibench train`: names and options in, a run folder out."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from bibench_deploy.lint.settings import Settings
    from bibench_deploy.targets._target import Target
    from bibench_train.datasets import Dataset
    from bibench_train.training import Recipe, TrainedRun

RUNS = Path("runs")
MODELS = Path("models")
DEFAULT_ARCHITECTURE = "resnet20"
DEFAULT_ALGORITHM = "reactnet"
DEFAULT_DATASET = "digits"
RECIPE = "Recipe"
ENGINE = "Where and how it runs"


def train(
    arch: Annotated[
        str | None, typer.Argument(help="The architecture; resnet20 where none is given.")
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(help="A binarization algorithm, or fp32. Default: reactnet."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Default: digits.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Start from this run's weights; none starts from scratch. Default for a "
            "binarized network: the FP32 run of its architecture and data set, if there is one.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in --out, or the latest one, after its last epoch."
        ),
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: 0.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Default: the data set's own.", rich_help_panel=RECIPE)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images of one step, all processes together. Default: the data set's own.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate. Default: the data set's own.", rich_help_panel=RECIPE),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam (default), adamw or sgd.", rich_help_panel=RECIPE)
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Of sgd. Default: 0.9.", rich_help_panel=RECIPE)
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Of weights; biases and batch norms have none. Default: 0.", rich_help_panel=RECIPE
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="cosine (default), step or constant.", rich_help_panel=RECIPE),
    ] = None,
    warmup_epochs: Annotated[
        int | None,
        typer.Option(
            min=0, help="In which the learning rate grows. Default: 0.", rich_help_panel=RECIPE
        ),
    ] = None,
    decay_epochs: Annotated[
        str | None,
        typer.Option(
            metavar="E,E…",
            help="Of step: after which epochs the rate falls. Default: 1/2 and 3/4 of them.",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    decay_factor: Annotated[
        float | None,
        typer.Option(
            help="Of step: by what it is multiplied. Default: 0.1.", rich_help_panel=RECIPE
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="From 0 to 1. Default: 0.", rich_help_panel=RECIPE)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32 (default), or bf16 for mixed precision by autocast.", rich_help_panel=RECIPE
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder the data set lies in.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=4096, metavar="PIXELS", help="Of image_folder. Default: 224."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that read image files ahead of the training step. Default: one a core.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="cpu, cuda, or auto for a GPU where there is one.", rich_help_panel=ENGINE
        ),
    ] = "auto",
    is_compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Run training steps through torch.compile (slow to begin with).",
            rich_help_panel=ENGINE,
        ),
    ] = False,
    has_tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Write TensorBoard event files into the run folder too.",
            rich_help_panel=ENGINE,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The run folder. Default: runs/<architecture>-<algorithm>-<dataset>.",
        ),
    ] = None,
    lint_target: Annotated[
        str | None,
        typer.Option(
            "--lint",
            metavar="TARGET",
            help="Warn before the first epoch of what keeps the network from this runtime.",
        ),
    ] = None,
    is_list: Annotated[
        bool, typer.Option("--list", help="List architectures, algorithms and data sets.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Train a network, binarized or FP32, into a run folder.

    Example: [bold]bibench train resnet20 --algorithm bireal[/bold]
    """
    if is_list:
        _print_list(is_json)
        return
    from bibench_train import algorithms, datasets, threads

    threads.wait_briefly()
    # Before torch is imported: a mistyped name is answered at once.
    for name, check in ((algorithm, algorithms.check), (dataset, datasets.check)):
        if name is not None:
            check(name)
    from bibench_train.training.device import DEVICES

    if device not in DEVICES:
        raise typer.BadParameter(
            f'one of {", ".join(DEVICES)}, not "{device}"', param_hint="--device"
        )
    asked = None if lint_target is None else _Lint.asked_for(lint_target)
    changes = _given(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
        scheduler=scheduler,
        warmup_epochs=warmup_epochs,
        decay_epochs=None if decay_epochs is None else _epochs(decay_epochs),
        decay_factor=decay_factor,
        label_smoothing=label_smoothing,
        precision=precision,
        seed=seed,
    )
    engine = {
        "device": device,
        "is_compiled": is_compiled,
        "has_tensorboard": has_tensorboard,
    }
    images = _Images(data, image_size, workers)
    if resume:
        if init is not None:
            raise typer.BadParameter(
                "a resumed run has its weights already", param_hint="--init with --resume"
            )
        run = _resume(arch, algorithm, dataset, changes, images, out, asked, engine)
    else:
        run = _start(
            arch or DEFAULT_ARCHITECTURE,
            algorithm or DEFAULT_ALGORITHM,
            dataset or DEFAULT_DATASET,
            changes,
            images,
            out,
            init,
            asked,
            engine,
        )
    if _is_main_process():
        _print_run(run, is_json)


@dataclass(frozen=True)
class _Lint:
    """What --lint asks for, read before anything begins: a mistake is answered at once."""

    targets: list[Target]
    settings: Settings

    @classmethod
    def asked_for(cls, text: str) -> _Lint:
        from bibench_deploy.cli.lint import named_targets
        from bibench_deploy.lint.settings import read_settings

        return cls(named_targets(text), read_settings(Path.cwd()))


@dataclass(frozen=True)
class _Images:
    """Where the images lie, and how to read them."""

    folder: Path | None
    size: int | None
    workers: int | None

    def load(self, name: str, default_size: int | None = None) -> Dataset:
        """The data set of this name."""
        from bibench_train import datasets

        dataset = datasets.load(name, self.folder, self.size or default_size)
        if self.workers is None:
            return dataset
        if not isinstance(dataset, datasets.ImagesOnDemand):
            raise typer.BadParameter(f"{name} is held in memory", param_hint="--workers")
        # Each of them is a dataclass, though their base is none.
        with_workers: Dataset = replace(cast("Any", dataset), workers=self.workers)
        return with_workers


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _epochs(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f'"{text}" is no list of epochs such as 100,150', param_hint="--decay-epochs"
        ) from None


def _recipe(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    try:
        return replace(recipe, **changes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _start(
    architecture: str,
    algorithm: str,
    dataset: str,
    changes: dict[str, Any],
    images: _Images,
    out: Path | None,
    init: str | None,
    asked: _Lint | None,
    engine: dict[str, Any],
) -> TrainedRun:
    from bibench_train import algorithms, architectures

    architectures.load(architecture)
    data_set = images.load(dataset)
    is_float = algorithm == algorithms.FP32
    recipe = _recipe(data_set.fp32_recipe if is_float else data_set.binary_recipe, changes)
    out = out or _free(RUNS / f"{architecture}-{algorithm}-{dataset}")
    init_dir = _init_dir(init, architecture, algorithm, dataset)
    beginning = f"from {init_dir}" if init_dir else "from scratch"
    if init_dir is None and init is None and not is_float:
        beginning += f" (no {architecture} fp32 run on {dataset} found; --init names one)"
    _say(f"training {architecture} {algorithm} on {dataset} {beginning} into {out}")
    _lint(asked, architecture, algorithm, data_set, recipe.epochs)
    return _train(
        architecture=architecture,
        algorithm=algorithm,
        dataset=data_set,
        out=out,
        init=init_dir,
        recipe=recipe,
        **engine,
    )


def _resume(
    architecture: str | None,
    algorithm: str | None,
    dataset: str | None,
    changes: dict[str, Any],
    images: _Images,
    out: Path | None,
    asked: _Lint | None,
    engine: dict[str, Any],
) -> TrainedRun:
    from bibench_train.training.checkpoint import load_resume

    out = out or _latest_run(architecture, algorithm, dataset)
    info, _ = load_resume(out)
    _say(
        f"resuming {info.architecture} {info.algorithm} on {info.dataset} in {out} after epoch "
        f"{info.epochs_done} of {info.recipe.epochs}"
    )
    architecture, algorithm = architecture or info.architecture, algorithm or info.algorithm
    data_set = images.load(dataset or info.dataset, info.input_shape[1])
    recipe = _recipe(info.recipe, changes)
    _lint(asked, architecture, algorithm, data_set, recipe.epochs)
    return _train(
        architecture=architecture,
        algorithm=algorithm,
        dataset=data_set,
        out=out,
        recipe=recipe,
        is_resumed=True,
        **engine,
    )


def _lint(
    asked: _Lint | None, architecture: str, algorithm: str, dataset: Dataset, epochs: int
) -> None:
    """Say what lint will find in the network when it is trained, where that is asked for."""
    from bibench_train import architectures

    pixels = architectures.load(architecture).image_size
    if asked is None or not _is_main_process() or pixels not in (None, dataset.input_shape[1]):
        return  # images of another size end the training in one line
    from bibench_deploy.export.finished_form import lint_finished_form
    from bibench_deploy.lint.finding import Severity
    from bibench_deploy.lint.formats.text import by_rule

    results = lint_finished_form(architecture, algorithm, dataset, epochs, asked.targets)
    for result in map(asked.settings.apply, results):
        grave = [item for item in result.findings if item.severity is not Severity.INFO]
        for line in by_rule(grave):
            _say(f"lint for {result.target}: {line}")
        if not grave:
            _say(f"lint for {result.target}: nothing keeps {architecture} {algorithm} from it")


def _train(*, out: Path, **arguments: Any) -> TrainedRun:
    from bibench_train.errors import CheckpointError, TrainingStoppedError
    from bibench_train.training import read_run, stderr_progress, train
    from bibench_train.training.loop import kept

    try:
        return train(out=out, progress=stderr_progress(), **arguments)
    except KeyboardInterrupt:
        try:
            epochs_done = read_run(out).epochs_done
        except CheckpointError:
            epochs_done = 0
        what_is_left = kept(out, arguments["dataset"].name, epochs_done)
        raise TrainingStoppedError(f"interrupted; {what_is_left}") from None


def _init_dir(init: str | None, architecture: str, algorithm: str, dataset: str) -> Path | None:
    from bibench_train.algorithms import FP32

    if init is not None:
        return None if init == "none" else Path(init)
    if algorithm == FP32:
        return None
    for folder in (
        RUNS / f"{architecture}-{FP32}-{dataset}",
        MODELS / f"{dataset}-{architecture}-{FP32}",
    ):
        if (folder / "run.json").is_file():
            return folder
    return None


def _free(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _latest_run(architecture: str | None, algorithm: str | None, dataset: str | None) -> Path:
    from bibench_train.errors import CheckpointError
    from bibench_train.training import read_run
    from bibench_train.training.checkpoint import RESUME_FILE

    asked = (architecture, algorithm, dataset)
    files = sorted(RUNS.glob(f"*/{RESUME_FILE}"), key=lambda file: file.stat().st_mtime)
    for file in reversed(files):
        info = read_run(file.parent)
        found = (info.architecture, info.algorithm, info.dataset)
        if all(a in (None, b) for a, b in zip(asked, found, strict=True)):
            return file.parent
    raise CheckpointError(
        f"no run of this kind in {RUNS}/ can be resumed; name its folder with --out, or train "
        "without --resume"
    )


def _print_run(run: TrainedRun, is_json: bool) -> None:
    info = run.info
    counts = info.accuracy
    if is_json:
        content = json.loads(info.to_json()) | {
            "accuracy": run.accuracy,
            "correct": counts.correct if counts else None,
            "images": counts.images if counts else None,
            "run_dir": str(run.run_dir),
            "seconds": round(run.seconds, 3),
        }
        typer.echo(json.dumps(content, indent=2))
        return
    right = f", {counts.correct} of {counts.images} test images" if counts else ""
    typer.echo(f"{run.run_dir}: {run.accuracy:.2f} %{right}, in {run.seconds:.0f} s")
    if info.best is not None and info.best.epoch != info.epochs_done:
        best = info.best
        typer.echo(f"  best       {best.accuracy.percent:.2f} % after epoch {best.epoch}")
    if info.data_wait_share is not None:
        typer.echo(
            f"  cost       {info.seconds_per_step:.4f} s per step, {info.data_wait_share:.1%} of "
            f"it waiting for data; peak memory {info.peak_memory_mib:,.0f} MiB"
        )


def _print_list(is_json: bool) -> None:
    import importlib

    from rich.console import Console
    from rich.table import Table

    from bibench_deploy.export.deployability import targets_for
    from bibench_train import algorithms, architectures, datasets

    found_algorithms = {name: algorithms.load(name) for name in algorithms.names()}
    content: dict[str, list[dict[str, Any]]] = {
        "architectures": [
            {"name": name, "title": a.title, "forms": ", ".join(a.forms), "source": a.source}
            for name, a in architectures.all_architectures().items()
        ],
        "algorithms": [
            {
                "name": name,
                "title": a.title,
                "scale": a.scale,
                "estimators": a.gradient,
                "schedule": a.schedule,
                "remains": a.remains,
                "targets": targets_for(a),
                "source": a.source,
            }
            for name, a in found_algorithms.items()
            if a is not None
        ],
        "datasets": [
            {
                "name": name,
                "title": (
                    importlib.import_module(f"bibench_train.datasets.{name}").__doc__ or ""
                ).splitlines()[0],
            }
            for name in datasets.names()
        ],
    }
    if is_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    console = Console()
    for kind, rows in content.items():
        # Seven columns fit on no terminal: an algorithm has a line for each of its facts.
        is_long = len(rows[0]) > 4
        columns = ("name", "", "") if is_long else tuple(rows[0])
        table = Table(*columns, title=kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in table.columns:
            column.overflow = "fold"
        for row in rows:
            name, *facts = ((key, _in_words(value)) for key, value in row.items())
            if is_long:
                for index, fact in enumerate(facts):
                    table.add_row("" if index else name[1], *fact)
            else:
                table.add_row(name[1], *(value for _, value in facts))
        console.print(table)
        console.print()


def _in_words(value: str | list[str]) -> str:
    return (", ".join(value) if isinstance(value, list) else value) or "none"


def _say(line: str) -> None:
    if _is_main_process():
        typer.echo(line, err=True)


def _is_main_process() -> bool:
    """Whether this is the one process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
