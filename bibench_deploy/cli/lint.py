"""`bibench lint`: can this network be deployed?"""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from bibench_deploy.cli._inputs import find_source
from bibench_deploy.cli._terminal import printable


def lint(
    source: Annotated[
        str | None,
        typer.Argument(
            help="An .onnx file, a run folder, models/<name> or package.module:callable; "
            "the latest run in ./runs unless given."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="The runtime to check for.")] = "lce",
    output_format: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    error_on_warning: Annotated[
        bool, typer.Option("--error-on-warning", help="Exit with 1 for warnings too.")
    ] = False,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="For a callable: its input as N,C,H,W, N,C,L or N,C, such as 1,3,224,224."
        ),
    ] = None,
) -> None:
    """Check whether a binarized network can be deployed.

    Exits with 0 when clean, 1 on an error-level finding, 2 when it could not run.
    Example: [bold]bibench lint model.onnx --target lce --format json[/bold]
    """
    from bibench_deploy import targets
    from bibench_deploy.graph.load import load_graph
    from bibench_deploy.lint import formats
    from bibench_deploy.lint.finding import Severity
    from bibench_deploy.lint.runner import lint_graph

    chosen = targets.load(target)
    render = formats.load("json" if as_json else output_format)
    network = find_source(source, input_shape)
    if network.onnx_path is not None:
        graph = load_graph(network.onnx_path)
    else:
        from bibench_deploy.export.pipeline import write_onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            with redirect_stdout(sys.stderr):  # a module may print while it runs
                write_onnx(network, path)
            graph = load_graph(path)
    result = lint_graph(graph, chosen)
    typer.echo(printable(render(result, network.name)), nl=False)
    is_bad = result.count(Severity.ERROR) or (error_on_warning and result.count(Severity.WARNING))
    if is_bad:
        raise typer.Exit(1)
