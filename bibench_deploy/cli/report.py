"""`bibench report`: results files → text, JSON, Markdown or HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bibench_deploy.cli._inputs import existing_results

RESULTS_DIRECTORY = Path("results")


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RESULTS]...",
            help="Files that bibench profile wrote; by default the newest in ./results.",
            show_default=False,
        ),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="text|json|md|html",
            help="How to write it; by default what --out ends in, else text.",
            show_default=False,
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Show BiBench's published latencies and scores instead of results.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write here instead of printing.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what was measured: latency, speed-up, the hardware track, size, parity, accuracy.

    Published figures of the same chip stand beside measured ones.

    Example: [bold]bibench report results/run.jsonl --format html --out report.html[/bold]
    """
    if paper and results:
        raise typer.BadParameter("--paper takes no results; leave one of the two out")

    from bibench_deploy.reports import (
        Document,
        Report,
        build_report,
        check_format,
        format_names,
        published_hardware_track,
        render,
    )
    from bibench_deploy.reports import write_report as write

    suffix = out.suffix.removeprefix(".") if out else ""
    chosen = check_format(format_name or (suffix if suffix in format_names() else "text"))
    content: Report | Document
    if paper:
        content = published_hardware_track()
    else:
        content = build_report(existing_results(results) if results else [_newest()])
    if out is None:
        typer.echo(render(content, chosen), nl=False)
    else:
        write(content, out, chosen)
        typer.echo(f"wrote {out}", err=True)


def _newest() -> Path:
    from bibench_deploy.errors import SourceError

    files = sorted(RESULTS_DIRECTORY.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise SourceError(
            f"no results in ./{RESULTS_DIRECTORY}; run bibench profile, or name a results file"
        )
    typer.echo(f"report of {files[-1]}, the newest results", err=True)
    return files[-1]
