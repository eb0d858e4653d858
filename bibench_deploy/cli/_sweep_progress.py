"""How far a sweep has come, on stderr: a table that grows in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bibench_deploy.profiling.journal import CellKey
    from bibench_deploy.profiling.session import Plan, Progress


@contextmanager
def progress_shown(plans: Sequence[Plan] = ()) -> Iterator[Callable[[str, Progress], None]]:
    """Show sweeps while they run; gives what is to be called with a device and its progress.

    Args:
        plans: of the sweeps, one for each device; where there are none, cells are shown as they
            come.
    """
    if not sys.stderr.isatty():
        has_one = len(plans) < 2
        yield lambda device, progress: typer.echo(
            progress_line(progress) if has_one else f"{device}: {progress_line(progress)}",
            err=True,
        )
        return
    from rich.console import Console
    from rich.live import Live

    table = LiveTable(plans)
    # Drawing takes processor time, which the measurement beside it would see.
    with Live(
        get_renderable=table.draw,
        console=Console(stderr=True),
        refresh_per_second=1,
        transient=True,
    ):
        yield table.update


def progress_line(progress: Progress) -> str:
    """One line of a sweep's progress."""
    if progress.key is None:
        return f"{progress.done}/{progress.total} blocks done"
    return (
        f"block {progress.done + 1}/{progress.total}: {progress.name}, "
        f"threads {progress.key.threads}"
    )


class _Row:
    """A cell while it is measured."""

    def __init__(self, name: str, blocks: int | None) -> None:
        self.name = name
        self.blocks = blocks
        self.middles_ms: list[float] = []
        self.verdict = ""


class LiveTable:
    """The cells of all sweeps with the blocks that they have so far, drawn when asked."""

    def __init__(self, plans: Sequence[Plan] = ()) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._rows: dict[CellKey, _Row] = {}
        self._done: dict[str, tuple[int, int]] = {}
        self._running: dict[str, CellKey | None] = {}
        for plan in plans:
            for cell in plan.cells:
                artifact = plan.artifacts[cell.key.artifact]
                # A narrow terminal cuts the end: the model and its twin must differ before.
                is_twin = artifact.role == "fp32_twin"
                name = f"FP32 twin: {artifact.name}" if is_twin else artifact.name
                self._rows[cell.key] = _Row(name, cell.blocks)
            self._done[plan.device.name] = (0, plan.block_count)
        self._bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task("blocks", total=None)

    def update(self, device: str, progress: Progress) -> None:
        """Take in what a sweep says of itself."""
        self._done[device] = (progress.done, progress.total)
        self._running[device] = progress.key
        if progress.key is not None:
            self._rows.setdefault(progress.key, _Row(progress.name, None))
        finished = progress.finished
        if finished is not None:
            row = self._rows.setdefault(finished.key, _Row(finished.key.artifact, None))
            row.middles_ms.append(finished.middle_ms)
            row.verdict = finished.verdict or ""
        done, total = (sum(numbers) for numbers in zip(*self._done.values(), strict=True))
        self._bar.update(self._task, completed=done, total=total)

    def draw(self) -> RenderableType:
        """The table and the bar, as they are now."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        has_devices = len(self._done) > 1
        if has_devices:
            table.add_column("device", no_wrap=True)
        table.add_column("model", min_width=12)  # the one that a narrow terminal shortens
        for heading in ("threads", "blocks", "median ms", "range ms"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        running = set(self._running.values())
        for key, row in self._rows.items():
            middles = row.middles_ms
            cells: list[Any] = [
                Text(row.name, overflow="ellipsis", no_wrap=True),  # a bracket in it is no markup
                str(key.threads),
                f"{len(middles)}/{row.blocks}" if row.blocks else str(len(middles)),
                f"{median(middles):.3f}" if middles else "",
                f"{min(middles):.3f}–{max(middles):.3f}" if len(middles) > 1 else "",
                row.verdict or ("measuring" if key in running else ""),
            ]
            table.add_row(*([key.device] if has_devices else []), *cells)
        return Group(table, self._bar)


def model_label(name: str, role: str) -> str:
    """A model's name in tables."""
    return f"{name} (FP32 twin)" if role == "fp32_twin" else name
