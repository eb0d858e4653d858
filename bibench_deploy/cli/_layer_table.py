"""The table of what became of every layer: rich's on a terminal, plain columns elsewhere."""

from __future__ import annotations

import shutil
import sys
from itertools import groupby
from typing import Any

_TITLES = ("layer", "weights", "became", "bits", "bytes", "intended")
_LONGEST_NAME = 40
# Rows of one kind in a row are drawn together from this many on.
_LEAST_GROUP = 3


def layer_table(layers: list[dict[str, Any]]) -> str:
    """What became of every layer, as text.

    Args:
        layers: of the manifest.
    """
    rows = [_TITLES, *_rows(layers)]
    return _drawn(rows) if sys.stdout.isatty() else _plain(rows)


def _rows(layers: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each layer, or for several in a row that differ in name only."""
    rows = []
    for _, group in groupby(layers, key=_alike):
        alike = list(group)
        if len(alike) < _LEAST_GROUP:
            rows += [_row(layer, layer["name"]) for layer in alike]
        else:
            name = f"{_cut(alike[0]['name'], 18)} … {_cut(alike[-1]['name'], 18)}"
            rows.append(_row(alike[0], name, f"{len(alike)} × "))
    return rows


def _alike(layer: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(str(value) for key, value in layer.items() if key != "name")


def _row(layer: dict[str, Any], name: str, times: str = "") -> tuple[str, ...]:
    bits, size = layer["actual_bits"], layer["actual_bytes"]
    became = layer["kernel"] or "merged with another"
    return (
        _cut(name, _LONGEST_NAME),
        "×".join(str(number) for number in layer["weight_shape"]),
        became + (f" ({', '.join(layer['fused'])})" if layer["fused"] else ""),
        "?" if bits is None else str(bits),
        "?" if size is None else f"{times}{size:,}",
        f"{layer['intended_bits']} bit, {layer['intended_bytes']:,}",
    )


def _cut(name: str, length: int) -> str:
    """A name of at most `length` letters, its middle left out.

    Example:
        >>> _cut("features.stage1.block2.conv1", 15)
        'feature…2.conv1'
    """
    if len(name) <= length:
        return name
    kept = length - 1
    return f"{name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"


def _plain(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if column < 3 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _drawn(rows: list[tuple[str, ...]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows[1:]:
        # Text, so that a name with brackets is not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=shutil.get_terminal_size().columns)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
