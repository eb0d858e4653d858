"""Plain text, for a terminal or a mail: aligned columns, no colour."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap

from bibench_deploy.reports import tables, wording
from bibench_deploy.reports.content import Report
from bibench_deploy.reports.document import Document
from bibench_deploy.reports.tables import Table


def render(report: Report) -> str:
    """Give the report as plain text."""
    blocks = [wording.summary(report)]
    if report.is_host_check:
        blocks.append(f"{wording.HOST_CHECK_TITLE}\n{wording.host_check(report)}")
    blocks += report.problems
    if report.mean_size_ratio is not None:
        means = (wording.mean_size(report), wording.mean_speedups(report), wording.CONVENTION)
        blocks.append("\n".join(filter(None, means)))
    blocks += [_draw(table) for table in tables.all_tables(report)]
    for run in report.runs:
        blocks.append(_pairs("Environment", tables.environment_rows(run)))
        blocks.append(f"Command\n  {wording.command_line(run.command)}")
    blocks.append(_pairs("Runtimes", tables.runtime_rows(report)))
    return "\n\n".join(blocks) + "\n"


def render_document(document: Document) -> str:
    """Give tables under a title as plain text."""
    blocks = [document.title, *document.lead, *(_draw(table) for table in document.tables)]
    return "\n\n".join(blocks) + "\n"


def _pairs(title: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _draw(table: Table) -> str:
    rows = [table.headers, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headers))]

    def align(column: int, cell: str) -> str:
        width = widths[column]
        return cell.rjust(width) if column in table.numeric else cell.ljust(width)

    lines = ["  ".join(starmap(align, enumerate(row))).rstrip() for row in rows]
    marks = ["  ", *("! " if index in table.flagged else "  " for index in range(len(table.rows)))]
    body = [f"{mark}{line}" for mark, line in zip(marks, lines, strict=True)]
    return "\n".join([table.title, *body, *(f"  {note}" for note in table.notes)])
