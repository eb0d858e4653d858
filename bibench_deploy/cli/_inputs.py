"""What several commands read from their arguments, and what they say on stderr."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bibench_deploy.export.source import Source


def say(message: str) -> None:
    """One plain line on stderr: what was picked, what is being done."""
    typer.echo(message, err=True)


def parse_shape(text: str) -> tuple[int, ...]:
    """`1,3,224,224` as (1, 3, 224, 224)."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) not in (2, 3, 4) or any(size < 1 for size in shape):
        raise typer.BadParameter(f'"{text}" is not N,C,H,W, N,C,L or N,C, such as 1,3,224,224')
    return shape


def find_source(text: str | None, input_shape: str | None, *, is_best: bool = False) -> Source:
    """The source that was named, or else the latest run, which is said."""
    from bibench_deploy.export.source import latest_run, resolve_source

    if text is None:
        text = str(latest_run())
        say(f"source: {text} (the latest run)")
    shape = None if input_shape is None else parse_shape(input_shape)
    source = resolve_source(text, shape, is_best=is_best)
    if shape is not None and source.kind != "callable":
        say("--input-shape is left out: this source has a shape of its own")
    return source


def default_out(name: str, target: str) -> Path:
    """Where an export goes unless the user says otherwise: always one folder under ./out.

    Example:
        >>> default_out("../my net", "lce").as_posix()
        'out/my-net-lce'
    """
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    return Path("out") / f"{plain[:100]}-{target}"


def existing_results(paths: list[Path]) -> list[Path]:
    """The same paths, each of which is a file.

    Raises:
        SourceError: one is not.
    """
    from bibench_deploy.errors import SourceError

    for path in paths:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise SourceError(f"{path} {what}; name a .jsonl file that bibench profile wrote")
    return paths
