"""`bibench train`: names and options in, a run folder out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bibench_train.training import TrainedRun

RUNS = Path("runs")
MODELS = Path("models")
DEFAULT_ARCHITECTURE = "resnet20"
DEFAULT_ALGORITHM = "reactnet"
DEFAULT_DATASET = "digits"


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
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the data set's own.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Default: the data set's own.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate. Default: the data set's own.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder the data set lies in.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The run folder. Default: runs/<architecture>-<algorithm>-<dataset>.",
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
    wanted = {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr, "seed": seed}
    changes = {key: value for key, value in wanted.items() if value is not None}
    if lr is not None and not 0 < lr < float("inf"):
        raise typer.BadParameter("a learning rate is a positive number", param_hint="--lr")
    if resume:
        if init is not None:
            raise typer.BadParameter(
                "a resumed run has its weights already", param_hint="--init with --resume"
            )
        run = _resume(arch, algorithm, dataset, changes, data, out)
    else:
        run = _start(
            arch or DEFAULT_ARCHITECTURE,
            algorithm or DEFAULT_ALGORITHM,
            dataset or DEFAULT_DATASET,
            changes,
            data,
            out,
            init,
        )
    _print_run(run, is_json)


def _start(
    architecture: str,
    algorithm: str,
    dataset: str,
    changes: dict[str, Any],
    data: Path | None,
    out: Path | None,
    init: str | None,
) -> TrainedRun:
    from bibench_train import algorithms, architectures, datasets

    architectures.load(architecture)
    data_set = datasets.load(dataset, data)
    is_float = algorithm == algorithms.FP32
    recipe = replace(data_set.fp32_recipe if is_float else data_set.binary_recipe, **changes)
    out = out or _free(RUNS / f"{architecture}-{algorithm}-{dataset}")
    init_dir = _init_dir(init, architecture, algorithm, dataset)
    beginning = f"from {init_dir}" if init_dir else "from scratch"
    if init_dir is None and init is None and not is_float:
        beginning += f" (no {architecture} fp32 run on {dataset} found; --init names one)"
    _say(f"training {architecture} {algorithm} on {dataset} {beginning} into {out}")
    return _train(
        architecture=architecture,
        algorithm=algorithm,
        dataset=data_set,
        out=out,
        init=init_dir,
        recipe=recipe,
    )


def _resume(
    architecture: str | None,
    algorithm: str | None,
    dataset: str | None,
    changes: dict[str, Any],
    data: Path | None,
    out: Path | None,
) -> TrainedRun:
    from bibench_train import datasets
    from bibench_train.training.checkpoint import load_resume

    out = out or _latest_run(architecture, algorithm, dataset)
    info, _ = load_resume(out)
    _say(
        f"resuming {info.architecture} {info.algorithm} on {info.dataset} in {out} after epoch "
        f"{info.epochs_done} of {info.recipe.epochs}"
    )
    return _train(
        architecture=architecture or info.architecture,
        algorithm=algorithm or info.algorithm,
        dataset=datasets.load(dataset or info.dataset, data),
        out=out,
        recipe=replace(info.recipe, **changes),
        is_resumed=True,
    )


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
        raise TrainingStoppedError(f"interrupted; {kept(out, epochs_done)}") from None


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


def _print_list(is_json: bool) -> None:
    import importlib

    from rich.console import Console
    from rich.table import Table

    from bibench_train import algorithms, architectures, datasets

    found_algorithms = {name: algorithms.load(name) for name in algorithms.names()}
    content: dict[str, list[dict[str, str]]] = {
        "architectures": [
            {"name": name, "title": a.title, "forms": ", ".join(a.forms), "source": a.source}
            for name, a in architectures.all_architectures().items()
        ],
        "algorithms": [
            {
                "name": name,
                "title": a.title,
                "scale": a.scale,
                "gradient (W / A)": a.gradient,
                "remains": a.remains,
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
        table = Table(title=kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in rows[0]:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
        console.print()


def _say(line: str) -> None:
    typer.echo(line, err=True)
