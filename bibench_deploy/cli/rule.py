"""`bibench rule`: what a lint rule finds, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def rule(
    name: Annotated[
        str | None, typer.Argument(metavar="CODE", help="A code or a name; all unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Explain a lint rule, with a bad and a good example.

    Example: [bold]bibench rule BIB203[/bold]
    """
    from bibench_deploy.lint.rules import document_of, load, load_all

    documents = [document_of(item) for item in (load_all() if name is None else [load(name)])]
    if as_json:
        content = [asdict(document) for document in documents]
        typer.echo(
            json.dumps(content if name is None else content[0], indent=2, ensure_ascii=False)
        )
    elif name is None:
        for document in documents:
            typer.echo(f"{document.code}  {document.name:<24}  {document.summary}")
    else:
        typer.echo(documents[0].text)
