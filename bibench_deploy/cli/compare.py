"""`bibench compare`: two results files → is anything slower or larger?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bibench_deploy.cli._inputs import existing_results
from bibench_deploy.cli._terminal import printable

EXIT_WORSE = 1
EXIT_INCONCLUSIVE = 3


def compare(
    old: Annotated[Path, typer.Argument(help="What was: a file that bibench profile wrote.")],
    new: Annotated[Path, typer.Argument(help="What is: another such file.")],
    threshold: Annotated[
        float,
        typer.Option(
            help="Percent by which a figure must change to count, beside its own noise.",
            min=0.0,
            max=1000.0,
        ),
    ] = 3.0,
    format_name: Annotated[
        str, typer.Option("--format", metavar="text|json|md|html", help="How to print it.")
    ] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Say whether models became slower or larger, as a gate in CI.

    Exits with 0 when nothing did, 1 when something did, 2 when it could not run,
    3 when it cannot be told, because a figure is noisy or missing.
    Example: [bold]bibench compare main.jsonl branch.jsonl[/bold]
    """
    from bibench_deploy.profiling.comparison import Outcome, compare_results
    from bibench_deploy.profiling.journal import read_results
    from bibench_deploy.reports import check_format, comparison_document, render

    chosen = check_format("json" if as_json else format_name)
    before, after = (read_results(path) for path in existing_results([old, new]))
    comparison = compare_results(before, after, threshold / 100)
    typer.echo(printable(render(comparison_document(comparison), chosen)), nl=False)
    if comparison.outcome is Outcome.WORSE:
        raise typer.Exit(EXIT_WORSE)
    if comparison.outcome is Outcome.INCONCLUSIVE:
        raise typer.Exit(EXIT_INCONCLUSIVE)
