"""`bibench profile`: measure exported models on a device."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_deploy.errors import DeployError

if TYPE_CHECKING:
    from bibench_deploy.profiling.journal import Cell, Results
    from bibench_deploy.profiling.resumption import BegunSweep
    from bibench_deploy.profiling.session import Plan, Progress

MAX_THREADS = 1024


def profile(
    artifact: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders that bibench export wrote; the latest under ./out unless said. "
            "An FP32 twin inside is measured too.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to run: a name in the device registry; local unless said.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Thread counts, such as 1,2,4; those of the device in the registry unless said.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="How long to measure: quick, standard or sustained; quick unless said.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The results file, a new one; results/<name>-<UTC time>.jsonl unless said.",
            metavar="FILE.jsonl",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with an interrupted sweep: that of --out, or else the newest in ./results. "
            "What was measured is kept, and what was planned need not be said again.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be measured, and stop.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Measure latency on a device, with every sample kept.

    Example: [bold]bibench profile out/resnet20-reactnet-digits-lce --threads 1,2[/bold]
    """
    from bibench_deploy.profiling.session import latest_artifact, plan_profile, profile_artifacts

    directories = list(artifact or [])
    if resume and not directories and (begun := _begun_sweep(out)) is not None:
        out, directories = begun.path, begun.directories
        typer.echo(f"going on with {out}", err=True)
        threads = threads or ",".join(map(str, begun.threads))
        device, preset = device or begun.device, preset or begun.preset
    device, preset = device or "local", preset or "quick"
    thread_counts = default_threads(device) if threads is None else parse_threads(threads)
    if not directories:
        directories = [latest_artifact()]
        typer.echo(f"latest export: {directories[0]}", err=True)
    if dry_run:
        _print_plan(plan_profile(directories, device, thread_counts, preset), json_output)
        return
    with progress_shown() as progress, _saying_how_to_go_on(progress) as watched:
        run = profile_artifacts(
            directories,
            device,
            thread_counts,
            preset,
            out,
            watched,
            resume=resume,
            command=["bibench", *(_shown_argument(argument) for argument in sys.argv[1:])],
        )
    typer.echo(f"results: {run.path}", err=True)
    if json_output:
        import json

        typer.echo(json.dumps(results_as_json(run.results), indent=2))
    else:
        _print_results(run.results)


def _begun_sweep(out: Path | None) -> BegunSweep | None:
    """What an unfinished file says of its sweep; None where `out` names no file yet."""
    from bibench_deploy.profiling.resumption import newest_unfinished, read_begun_sweep
    from bibench_deploy.profiling.session import RESULTS_DIRECTORY

    if out is not None and not (out.is_file() and out.stat().st_size):
        return None
    return read_begun_sweep(newest_unfinished(RESULTS_DIRECTORY) if out is None else out)


def parse_threads(text: str) -> tuple[int, ...]:
    """Read thread counts, such as "1,2,4".

    Raises:
        DeployError: the text has another form.

    Example:
        >>> parse_threads("4, 1")
        (1, 4)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(
        part.isascii() and part.isdigit() and 1 <= int(part) <= MAX_THREADS for part in parts
    ):
        raise DeployError(
            f'--threads "{text}" is no list of thread counts; write whole numbers, such as 1,2,4'
        )
    return tuple(sorted({int(part) for part in parts}))


def default_threads(device: str = "local") -> tuple[int, ...]:
    """Give the thread counts of a sweep that names none.

    Here they are the powers of two up to the number of cores, and that number; elsewhere what
    the registry says under `threads`, or else 1.

    Raises:
        DeployError: there is no such device, or its `threads` are no list of numbers.
    """
    if device != "local":
        from bibench_deploy.devices.registry import find_device

        registered = find_device(device).facts.get("threads", [1])
        if not isinstance(registered, list):
            raise DeployError(f"device {device}: threads must be a list, such as [1, 2, 4]")
        return parse_threads(",".join(map(str, registered)))
    # macOS has no affinity to ask for.
    ask = getattr(os, "sched_getaffinity", None)
    cores = len(ask(0)) if ask else os.cpu_count() or 1
    powers = (2**exponent for exponent in range(cores.bit_length()))
    return tuple(sorted({*powers, cores}))


def results_as_json(results: Results) -> dict[str, Any]:
    """Give the figures of a sweep under the stable names of the command line's contract."""
    return {
        "path": str(results.path),
        "run": results.header.run,
        "problems": list(results.problems),
        "cells": [_cell_as_json(results, cell) for cell in results.cells.values()],
    }


def _cell_as_json(results: Results, cell: Cell) -> dict[str, Any]:
    artifact = results.artifacts[cell.key.artifact]
    return {
        "artifact": artifact.id,
        "name": artifact.name,
        "role": artifact.role,
        "model_sha256": artifact.manifest["model_sha256"],
        "size_bytes": artifact.size_bytes,
        "device": cell.key.device,
        "threads": cell.key.threads,
        "latency_ms": {
            "p50": cell.latency_ms.p50,
            "p90": cell.latency_ms.p90,
            "low_ms": cell.latency_ms.low_ms,
            "high_ms": cell.latency_ms.high_ms,
        },
        "speed_up": results.speed_up(cell),
        "peak_memory_mib": cell.peak_memory_mib,
        "verdict": cell.verdict,
        "reason": cell.reason,
        "note": cell.note,
        "runtime": dict(cell.runtime),
    }


def _print_plan(plan: Plan, is_json: bool) -> None:
    cells = [
        {
            "artifact": cell.key.artifact,
            "name": plan.artifacts[cell.key.artifact].name,
            "role": plan.artifacts[cell.key.artifact].role,
            "device": cell.key.device,
            "threads": cell.key.threads,
            "blocks": cell.blocks,
        }
        for cell in plan.cells
    ]
    if is_json:
        import json

        typer.echo(json.dumps({"preset": plan.preset.name, "cells": cells}, indent=2))
        return
    for cell in cells:
        typer.echo(
            f"{_model_label(str(cell['name']), str(cell['role']))} on {cell['device']}, "
            f"threads {cell['threads']}: {cell['blocks']} blocks"
        )


def _print_results(results: Results) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    # In a narrow terminal names take more lines; figures are never cut.
    table.add_column("model", overflow="fold", min_width=12)
    for heading in ("threads", "p50 ms", "p90 ms", "speed-up", "size MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("kernels", overflow="fold")
    remarks: list[str] = []
    for cell in results.cells.values():
        artifact = results.artifacts[cell.key.artifact]
        label = _model_label(artifact.name, artifact.role)
        speed_up = results.speed_up(cell)
        kernels = [cell.runtime.get("binary_kernel"), cell.runtime.get("float_kernel")]
        # Names from a manifest are data: a bracket in one is no markup.
        table.add_row(
            Text(label),
            str(cell.key.threads),
            f"{cell.latency_ms.p50:.3f}",
            "" if cell.latency_ms.p90 is None else f"{cell.latency_ms.p90:.3f}",
            "" if speed_up is None else f"{speed_up:.2f}×",
            f"{artifact.size_bytes / 1e6:.2f}",
            cell.verdict,
            Text(" + ".join(kernel for kernel in kernels if kernel)),
        )
        where = f"{label}, threads {cell.key.threads}"
        if cell.verdict != "stable":
            remarks.append(f"{where}: {cell.verdict}: {cell.reason}")
        if cell.note:
            remarks.append(f"{where}: {cell.note}")
    console = Console()
    if not console.is_terminal:
        # A pipe has no width: let no column be cut.
        console = Console(width=400)
    console.print(table)
    for remark in remarks:
        typer.echo(remark)


def _model_label(name: str, role: str) -> str:
    return f"{name} (FP32 twin)" if role == "fp32_twin" else name


def _progress_line(progress: Progress) -> str:
    if progress.key is None:
        return f"{progress.done}/{progress.total} blocks done"
    return (
        f"block {progress.done + 1}/{progress.total}: {progress.name}, "
        f"threads {progress.key.threads}"
    )


@contextmanager
def progress_shown() -> Iterator[Callable[[Progress], None]]:
    """Show a sweep's progress on stderr: a bar in a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda progress: typer.echo(_progress_line(progress), err=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    # Drawing takes processor time, which the measurement beside it would see.
    with Bar(*columns, console=Console(stderr=True), refresh_per_second=1) as bar:
        task = bar.add_task("profile", total=None)
        yield lambda progress: bar.update(
            task,
            description=escape(_progress_line(progress)),
            total=progress.total,
            completed=progress.done,
        )


@contextmanager
def _saying_how_to_go_on(
    progress: Callable[[Progress], None],
) -> Iterator[Callable[[Progress], None]]:
    """Say, where a sweep ends early, that its blocks were kept and how to measure the others."""
    done = 0

    def watch(said: Progress) -> None:
        nonlocal done
        done = said.done
        progress(said)

    try:
        yield watch
    except (DeployError, KeyboardInterrupt):
        if done:
            typer.echo(f"blocks kept: {done}; go on with: bibench profile --resume", err=True)
        raise


def _shown_argument(argument: str) -> str:
    # The record travels with the results: a home folder in it would name its owner.
    return Path(argument).name if argument.startswith("/") else argument
