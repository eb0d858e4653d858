"""The table of what became of every layer: rich's on a terminal, plain columns elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Any

_TITLES = ("layer", "weights", "became", "bits", "bytes", "intended")
# Columns of names are flush left, those of numbers flush right.
_FLUSH_LEFT = 3
_SEPARATOR = 2
_LONGEST_NAME = 40
_SHORTEST_NAME = 16
# Rows of one kind in a row are drawn together from this many on.
_LEAST_GROUP = 3

_Row = tuple[str, ...]


def layer_table(layers: list[dict[str, Any]]) -> str:
    """What became of every layer, as text.

    The columns: the layer, the shape of its weights, the operator that it became and what
    that does besides, bits of a weight (intended → actual where they differ), bytes in the
    file, and the bytes that its weights should take.

    Args:
        layers: of the manifest.
    """
    if not sys.stdout.isatty():
        return columns(_rows(layers, _LONGEST_NAME), _FLUSH_LEFT)
    width = shutil.get_terminal_size().columns
    for tells_fused in (True, False):
        rest = _rows(layers, 0, tells_fused=tells_fused)
        used = sum(_widths(rest)[1:]) + _SEPARATOR * (len(_TITLES) - 1)
        if width - used >= _SHORTEST_NAME:
            break
    name = max(_SHORTEST_NAME, min(_LONGEST_NAME, width - used))
    return _drawn(_rows(layers, name, tells_fused=tells_fused))


def _rows(layers: list[dict[str, Any]], name: int, *, tells_fused: bool = True) -> list[_Row]:
    """The heading, and one row for each layer, or for several that differ in name only."""
    rows: list[_Row] = [_TITLES]
    for _, group in groupby(layers, key=_alike):
        alike = list(group)
        if len(alike) < _LEAST_GROUP:
            rows += [_row(layer, cut(layer["name"], name), tells_fused) for layer in alike]
        else:
            half = (name - 3) // 2
            ends = f"{cut(alike[0]['name'], half)} … {cut(alike[-1]['name'], half)}"
            rows.append(_row(alike[0], ends, tells_fused, f"{len(alike)} × "))
    return rows


def _alike(layer: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(str(value) for key, value in layer.items() if key != "name")


def _row(layer: dict[str, Any], name: str, tells_fused: bool, times: str = "") -> _Row:
    bits, size = layer["actual_bits"], layer["actual_bytes"]
    became = layer["kernel"] or "part of another"
    if layer["fused"] and tells_fused:
        became += f" ({', '.join(layer['fused'])})"
    actual = "?" if bits is None else str(bits)
    return (
        name,
        "×".join(str(number) for number in layer["weight_shape"]),
        became,
        actual if bits == layer["intended_bits"] else f"{layer['intended_bits']} → {actual}",
        "?" if size is None else f"{times}{size:,}",
        f"{times}{layer['intended_bytes']:,}",
    )


def cut(name: str, length: int) -> str:
    """A name of at most `length` letters, its middle left out.

    Example:
        >>> cut("features.stage1.block2.conv1", 15)
        'feature…2.conv1'
    """
    if len(name) <= length:
        return name
    kept = max(length - 1, 0)
    return f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"


def _widths(rows: Sequence[_Row]) -> list[int]:
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def columns(rows: Sequence[_Row], flush_left: int) -> str:
    """Rows of cells as plain text.

    Args:
        rows: the heading, and the others; all of one length.
        flush_left: how many columns are flush left; the others are flush right.
    """
    lines, widths = [], _widths(rows)
    for row in rows:
        cells = [
            text.ljust(width) if column < flush_left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * _SEPARATOR).join(["", *cells]).rstrip())
    return "\n".join(lines) + "\n"


def _drawn(rows: list[_Row]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, _SEPARATOR, 0, 0), header_style="bold")
    for column, title in enumerate(_TITLES):
        justify = "left" if column < _FLUSH_LEFT else "right"
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # one of rich's own words
    for row in rows[1:]:
        # Text, so that a name with brackets is not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=shutil.get_terminal_size().columns)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
