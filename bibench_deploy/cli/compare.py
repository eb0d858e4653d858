"""`bibench compare`: two results files → is anything slower or larger?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bibench_deploy.cli._inputs import existing_results
from bibench_deploy.cli._sweep_progress import progress_shown
from bibench_deploy.cli._terminal import printable
from bibench_deploy.errors import DeployError

if TYPE_CHECKING:
    from bibench_deploy.profiling.comparison import Comparison
    from bibench_deploy.profiling.journal import Results

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
    rerun: Annotated[
        bool,
        typer.Option(
            "--rerun/--no-rerun",
            help="Where noise in NEW alone keeps it from a conclusion, measure that once more, if "
            "the device and the models are at hand.",
        ),
    ] = True,
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
    if rerun and comparison.outcome is Outcome.INCONCLUSIVE:
        after = _measured_again(after, comparison)
        comparison = compare_results(before, after, threshold / 100)
    typer.echo(printable(render(comparison_document(comparison), chosen)), nl=False)
    if comparison.outcome is Outcome.WORSE:
        raise typer.Exit(EXIT_WORSE)
    if comparison.outcome is Outcome.INCONCLUSIVE:
        raise typer.Exit(EXIT_INCONCLUSIVE)


def _measured_again(results: Results, comparison: Comparison) -> Results:
    """NEW with its noisy cells measured once more; as it is where that cannot be done."""
    from bibench_deploy.profiling.repetition import again_path, measure_again, repeatable_cells

    keys = repeatable_cells(comparison)
    if not keys:
        return results
    device, path = keys[0].device, again_path(results.path)
    cells = "1 cell" if len(keys) == 1 else f"{len(keys)} cells"
    typer.echo(f"noise in {cells} of {results.path}: once more, into {path}", err=True)
    try:
        with progress_shown() as show:
            return measure_again(results, keys, partial(show, device))
    except DeployError as error:
        typer.echo(f"not measured again: {printable(str(error))}", err=True)
        return results
