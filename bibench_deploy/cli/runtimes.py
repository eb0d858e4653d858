"""`bibench runtimes`: the programs for devices that bibench does not come with."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bibench_deploy.cli._inputs import say
from bibench_deploy.errors import DeviceError, UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.devices.runtimes import Program

app = typer.Typer(
    no_args_is_help=True,
    help="Benchmark programs kept for devices, by their hash.\n\n"
    "Example: [bold]bibench runtimes list[/bold]",
)


@app.command("list")
def list_runtimes(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """List the programs, their ABIs, and which of them are kept here.

    Example: [bold]bibench runtimes list[/bold]
    """
    from bibench_deploy.devices.runtimes import find_program

    rows = []
    for program in _programs().values():
        for abi, source in program.sources.items():
            kept = find_program(program, abi)
            rows.append(
                {
                    "name": program.name,
                    "abi": abi,
                    "sha256": kept.sha256 if kept else None,
                    "path": str(kept.path) if kept else None,
                    "source": source,
                }
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        state = f"kept, sha256 {row['sha256'][:12]}" if row["sha256"] else row["source"]
        typer.echo(f"{row['name']:{width}}  {row['abi']:13}  {state}")


@app.command("add")
def add_runtime(
    name: str,
    abi: Annotated[str, typer.Option(help="What it is built for, for example aarch64.")],
    path: Annotated[
        Path | None,
        typer.Argument(
            help="The program; without it, bibench builds it or says where to get it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Keep a program for devices of an ABI; from now on it is the one that is pushed there.

    Example: [bold]bibench runtimes add lce --abi aarch64 lce_benchmark_model_aarch64[/bold]
    """
    from bibench_deploy.devices.runtimes import add_program

    programs = _programs()
    if name not in programs:
        raise UnknownNameError("runtime", name, sorted(programs))
    program = programs[name]
    if abi not in program.sources:
        raise UnknownNameError("ABI", abi, tuple(program.sources))
    if path is None and program.build is None:
        raise DeviceError(
            f"get {program.sources[abi]}, then run: bibench runtimes add {name} --abi {abi} FILE"
        )
    with tempfile.TemporaryDirectory() as folder:
        if path is None and program.build is not None:
            path = program.build(abi, Path(folder))
        assert path is not None
        kept = add_program(program, abi, path)
    say(f"{name} for {abi}: sha256 {kept.sha256}, kept as {kept.path}")


def _programs() -> dict[str, Program]:
    """What the runners need that bibench does not come with, by name."""
    from bibench_deploy.profiling.runners import load_runner, runner_names

    wanted = (load_runner(name).program for name in runner_names())
    return {program.name: program for program in wanted if program is not None}
