from __future__ import annotations

import io

from rich.console import Console

from bibench_deploy.cli._sweep_progress import LiveTable
from bibench_deploy.profiling.journal import CellKey
from bibench_deploy.profiling.session import Finished, Progress

KEY = CellKey("0123", "pi4", 2)
OTHER = CellKey("0123", "kirin990", 2)


def drawn(table: LiveTable, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(table.draw())
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_a_cell_shows_its_blocks_their_median_and_range_and_at_last_its_verdict() -> None:
    table = LiveTable()
    table.update("pi4", Progress(0, 2, KEY, "net [b]"))
    assert drawn(table)[1] == "net [b] 2 0 measuring"
    table.update("pi4", Progress(1, 2, KEY, "net [b]", Finished(KEY, 1.5, None)))
    assert drawn(table)[1] == "net [b] 2 1 1.500 measuring"
    table.update("pi4", Progress(2, 2, None, "", Finished(KEY, 2.5, "noisy")))
    assert drawn(table)[1] == "net [b] 2 2 2.000 1.500–2.500 noisy"
    assert "2/2" in drawn(table)[-1]


def test_devices_are_named_where_there_are_several() -> None:
    table = LiveTable()
    table.update("pi4", Progress(0, 3, KEY, "net"))
    table.update("kirin990", Progress(0, 3, OTHER, "net"))
    lines = drawn(table)
    assert lines[0].split()[0] == "device"
    assert [line.split()[0] for line in lines[1:3]] == ["pi4", "kirin990"]
    assert "0/6" in lines[-1]


def test_a_narrow_terminal_shortens_the_name_and_no_figure() -> None:
    table = LiveTable()
    long = "a-network-with-a-name-that-is-longer-than-a-terminal-is-wide"
    table.update("pi4", Progress(1, 2, KEY, long, Finished(KEY, 1234.5678, None)))
    table.update("pi4", Progress(2, 2, None, "", Finished(KEY, 1334.5678, "throttled")))
    line = drawn(table, 70)[1]
    assert line.startswith("a-network")
    assert line.endswith("2 2 1284.568 1234.568–1334.568 throttled")
