"""Markdown with GitHub's tables, for a README, an issue or a pull request."""

from __future__ import annotations

import re

from bibench_deploy.reports import tables, wording
from bibench_deploy.reports.content import Report
from bibench_deploy.reports.document import Document
from bibench_deploy.reports.tables import Table


def render(report: Report) -> str:
    """Give the report as Markdown."""
    blocks = ["# bibench report", f"**{_escape(wording.summary(report))}**"]
    if report.is_host_check:
        blocks.append(f"> **{wording.HOST_CHECK_TITLE}**\n> {wording.host_check(report)}")
    blocks += [f"> **{_escape(problem)}**" for problem in report.problems]
    if report.mean_size_ratio is not None:
        means = (wording.mean_size(report), wording.mean_speedups(report))
        blocks.append(" ".join(_escape(mean) for mean in means if mean))
        blocks.append(wording.CONVENTION)
    for table in tables.all_tables(report):
        blocks += _section(table)
    blocks.append("## Environment")
    for run in report.runs:
        rows = tables.environment_rows(run)
        blocks.append(_draw(Table(title="", headers=("", "Value"), rows=rows)))
        blocks.append(f"```sh\n{wording.command_line(run.command)}\n```")
    runtimes = tables.runtime_rows(report)
    blocks.append(_draw(Table(title="", headers=("Runtime", "Details"), rows=runtimes)))
    return "\n\n".join(blocks) + "\n"


def render_document(document: Document) -> str:
    """Give tables under a title as Markdown."""
    blocks = [f"# {_escape(document.title)}", *(_escape(text) for text in document.lead)]
    for table in document.tables:
        blocks += _section(table)
    return "\n\n".join(blocks) + "\n"


def _section(table: Table) -> list[str]:
    return [f"## {table.title}", _draw(table), *(_escape(note) for note in table.notes)]


def _draw(table: Table) -> str:
    rule = ("---:" if column in table.numeric else "---" for column in range(len(table.headers)))
    lines = [_row(table.headers), f"| {' | '.join(rule)} |"]
    for index, row in enumerate(table.rows):
        cells = [_escape(cell) for cell in row]
        lines.append(_row([f"⚠ {cells[0]}", *cells[1:]] if index in table.flagged else cells))
    return "\n".join(lines)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Keep a name from becoming markup, or from ending its table cell."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
