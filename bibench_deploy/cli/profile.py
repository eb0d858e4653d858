"""`bibench profile`: measure exported models on a device."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibench_deploy.cli._several_devices import EVENTS, print_end, print_event, run_sweeps
from bibench_deploy.cli._sweep_progress import model_label, progress_shown
from bibench_deploy.errors import DeployError, DeviceError

if TYPE_CHECKING:
    from bibench_deploy.profiling.journal import Cell, Results
    from bibench_deploy.profiling.session import Plan, ProfileRun, Progress

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
            help="Where to run: names in the device registry, such as pi4,kirin990; several run at "
            "the same time, each with its own results file. local unless said.",
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
    cpus: Annotated[
        str | None,
        typer.Option(
            help="Keep the runs on these cores: big, little, or numbers such as 0-3 or 0,2; all "
            "unless said.",
            metavar="big|little|0-3",
            show_default=False,
        ),
    ] = None,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin",
            help="Hold the frequency governor at performance meanwhile (needs root there), and put "
            "back what was there.",
        ),
    ] = False,
    operators: Annotated[
        bool,
        typer.Option(
            "--operators",
            help="Say too which operators the time of each model goes to, from a run of its own.",
        ),
    ] = False,
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
    events: Annotated[bool, typer.Option(EVENTS, hidden=True)] = False,
) -> None:
    """Measure latency on devices, with every sample kept.

    Example: [bold]bibench profile out/resnet20-reactnet-digits-lce --threads 1,2[/bold]
    """
    from bibench_deploy.devices.transports import check_connected

    names = [None] if device is None else parse_devices(device)
    asked = _Sweep(list(artifact or []), None, threads, preset, out, cpus, pin, operators)
    if not asked.directories and not resume:
        asked = replace(asked, directories=[_latest_artifact()])
    sweeps = []
    for name in names:
        own_out = _out_of(out, name) if out is not None and len(names) > 1 else out
        sweep = replace(asked, device=name, out=own_out)
        sweeps.append(_begun(sweep) if resume else sweep)
    plans = [sweep.plan() for sweep in sweeps]
    if len(plans) > 1 and not dry_run:
        # Before any of them starts.
        for plan in plans:
            check_connected(plan.device)
    if dry_run:
        _print_plans(plans, json_output)
    elif events:
        _run_for_parent(sweeps[0], resume=resume)
    elif len(sweeps) == 1:
        name = sweeps[0].device_name
        again = _again([], out)
        with (
            progress_shown(plans) as show,
            _saying_how_to_go_on(partial(show, name), again) as progress,
        ):
            run = sweeps[0].run(progress, resume=resume)
        _say_results(run.path)
        for remark in run.remarks:
            typer.echo(remark, err=True)
        if json_output:
            _print_json(results_as_json(run.results))
        else:
            _print_results([run.results])
    else:
        _run_several(sweeps, plans, out, resume=resume, is_json=json_output)


@dataclass(frozen=True)
class _Sweep:
    """A sweep on one device, as it was asked for; None for what was not said."""

    directories: list[Path]
    device: str | None
    threads: str | None
    preset: str | None
    out: Path | None
    cpus: str | None
    pin: bool
    operators: bool

    @property
    def device_name(self) -> str:
        return self.device or "local"

    def settings(self) -> tuple[list[Path], str, tuple[int, ...], str]:
        """What `plan_profile` and `profile_artifacts` are given."""
        device = self.device_name
        threads = default_threads(device) if self.threads is None else parse_threads(self.threads)
        return self.directories, device, threads, self.preset or "quick"

    def plan(self) -> Plan:
        from bibench_deploy.profiling.session import plan_profile

        return plan_profile(*self.settings())

    def run(self, progress: Callable[[Progress], None], *, resume: bool) -> ProfileRun:
        from bibench_deploy.profiling.session import profile_artifacts

        words = [_shown_argument(word) for word in sys.argv[1:] if word != EVENTS]
        command = ["bibench", *words]
        return profile_artifacts(
            *self.settings(), self.out, progress, resume=resume, command=command,
            cpus=self.cpus, pin=self.pin, operators=self.operators,
        )  # fmt: skip

    def words(self, *, resume: bool) -> list[str]:
        """What is typed behind `bibench profile` for it."""
        directories, device, threads, preset = self.settings()
        options = {"--device": device, "--threads": ",".join(map(str, threads))}
        options |= {"--preset": preset} | ({"--out": str(self.out)} if self.out else {})
        options |= {"--cpus": self.cpus} if self.cpus is not None else {}
        words = [word for option in options.items() for word in option]
        words += ["--pin"] * self.pin + ["--operators"] * self.operators
        words += ["--resume"] * resume
        # Behind "--" no folder is taken for an option.
        return [*words, "--", *map(str, directories)]


def _latest_artifact() -> Path:
    from bibench_deploy.profiling.session import latest_artifact

    found = latest_artifact()
    typer.echo(f"latest export: {found}", err=True)
    return found


def _out_of(out: Path, device: str | None) -> Path:
    """The results file of one of several devices."""
    return out.with_name(f"{out.stem}-{device}{out.suffix}")


def _begun(asked: _Sweep) -> _Sweep:
    """The sweep that is to go on: what was not said is taken from its file."""
    from bibench_deploy.profiling.resumption import newest_unfinished, read_begun_sweep
    from bibench_deploy.profiling.session import RESULTS_DIRECTORY

    out = asked.out
    if out is not None and not (out.is_file() and out.stat().st_size):
        return asked if asked.directories else replace(asked, directories=[_latest_artifact()])
    if out is None:
        planned = asked.plan().cells if asked.directories else None
        out = newest_unfinished(RESULTS_DIRECTORY, planned, asked.device)
    if asked.directories:
        return replace(asked, out=out)
    begun = read_begun_sweep(out)
    typer.echo(f"going on with {out}", err=True)
    return _Sweep(
        begun.directories,
        asked.device or begun.device,
        asked.threads or ",".join(map(str, begun.threads)),
        asked.preset or begun.preset,
        out,
        asked.cpus or begun.cpus,
        asked.pin or begun.is_pinned,
        asked.operators,
    )


def _run_for_parent(sweep: _Sweep, *, resume: bool) -> None:
    """Run one of several sweeps, and tell the bibench that started this one of it."""
    print_end(sweep.run(print_event, resume=resume))


def _run_several(
    sweeps: Sequence[_Sweep],
    plans: Sequence[Plan],
    out: Path | None,
    *,
    resume: bool,
    is_json: bool,
) -> None:
    """Run sweeps on several devices at once; those that fail are named at the end."""
    from bibench_deploy.profiling.journal import read_results

    commands = {sweep.device_name: sweep.words(resume=resume) for sweep in sweeps}
    last: dict[str, Progress] = {}

    def watch(device: str, said: Progress) -> None:
        last[device] = said
        progress(device, said)

    try:
        with progress_shown(plans) as progress:
            ended = run_sweeps(commands, watch)
    except KeyboardInterrupt:
        begun = [name for name in commands if name in last and last[name].done]
        # Without --out only a file that has blocks, and not all, is found again.
        unfinished = [name for name in begun if last[name].done < last[name].total]
        again = list(commands) if out is not None else unfinished
        if begun and again:
            typer.echo(f"go on with: {_again(again, out)}", err=True)
        raise
    failed = {sweep.device: sweep.error for sweep in ended if sweep.path is None}
    paths = [sweep.path for sweep in ended if sweep.path is not None]
    for path in paths:
        _say_results(path)
    for sweep in ended:
        for remark in sweep.remarks:
            typer.echo(f"{sweep.device}: {remark}", err=True)
    finished = [read_results(path) for path in paths]
    if is_json:
        _print_json({"sweeps": [results_as_json(one) for one in finished], "failed": failed})
    elif finished:
        _print_results(finished, has_devices=True)
    for device, error in failed.items():
        typer.echo(f"{device}: {error}", err=True)
    if failed:
        raise DeviceError(
            f"{len(failed)} of {len(ended)} devices failed: {', '.join(failed)}; run it again with "
            f"--device {','.join(failed)}, and with --resume where blocks were kept"
        )


def _again(devices: Sequence[str], out: Path | None) -> str:
    """The command that goes on with what was interrupted."""
    words = ["--device", ",".join(devices)] if devices else []
    words += ["--out", str(out)] if out is not None else []
    return shlex.join(["bibench", "profile", *words, "--resume"])


def _say_results(path: Path) -> None:
    typer.echo(f"results: {path}", err=True)


def parse_devices(text: str) -> list[str]:
    """Read names of devices, such as "pi4,kirin990"; one named twice counts once.

    Raises:
        DeployError: a name is empty.

    Example:
        >>> parse_devices("pi4, kirin990,pi4")
        ['pi4', 'kirin990']
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise DeployError(f'--device "{text}" is no list of names; write for example pi4,kirin990')
    return list(dict.fromkeys(names))


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


def _print_plans(plans: Sequence[Plan], is_json: bool) -> None:
    cells = [
        {
            "artifact": cell.key.artifact,
            "name": plan.artifacts[cell.key.artifact].name,
            "role": plan.artifacts[cell.key.artifact].role,
            "device": cell.key.device,
            "threads": cell.key.threads,
            "blocks": cell.blocks,
        }
        for plan in plans
        for cell in plan.cells
    ]
    if is_json:
        _print_json({"preset": plans[0].preset.name, "cells": cells})
        return
    for cell in cells:
        typer.echo(
            f"{model_label(str(cell['name']), str(cell['role']))} on {cell['device']}, "
            f"threads {cell['threads']}: {cell['blocks']} blocks"
        )


def _print_json(document: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))


def _print_results(sweeps: Sequence[Results], *, has_devices: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    if has_devices:
        table.add_column("device", no_wrap=True)
    # In a narrow terminal names take more lines; figures are never cut.
    table.add_column("model", overflow="fold", min_width=12)
    for heading in ("threads", "p50 ms", "p90 ms", "speed-up", "size MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("kernels", overflow="fold")
    remarks: list[str] = []
    for results in sweeps:
        for cell in results.cells.values():
            artifact = results.artifacts[cell.key.artifact]
            label = model_label(artifact.name, artifact.role)
            speed_up = results.speed_up(cell)
            kernels = [cell.runtime.get("binary_kernel"), cell.runtime.get("float_kernel")]
            # Names from a manifest are data: a bracket in one is no markup.
            table.add_row(
                *([Text(cell.key.device)] if has_devices else []),
                Text(label),
                str(cell.key.threads),
                f"{cell.latency_ms.p50:.3f}",
                "" if cell.latency_ms.p90 is None else f"{cell.latency_ms.p90:.3f}",
                "" if speed_up is None else f"{speed_up:.2f}×",
                f"{artifact.size_bytes / 1e6:.2f}",
                cell.verdict,
                Text(" + ".join(kernel for kernel in kernels if kernel)),
            )
            on = f" on {cell.key.device}" if has_devices else ""
            where = f"{label}{on}, threads {cell.key.threads}"
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


@contextmanager
def _saying_how_to_go_on(
    progress: Callable[[Progress], None], again: str
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
            typer.echo(f"blocks kept: {done}; go on with: {again}", err=True)
        raise


def _shown_argument(argument: str) -> str:
    # The record travels with the results: a home folder in it would name its owner.
    return Path(argument).name if argument.startswith("/") else argument
