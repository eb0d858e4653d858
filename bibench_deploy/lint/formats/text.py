"""Findings for people: grouped by layer, each with its hint; for several targets, a matrix.

Layers of which the same was found share their lines.

What is only worth knowing is one line for each rule, however many layers it is true of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from bibench_deploy.counted import counted
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.runner import LintResult, Report

THE_FILE = "(the file)"
_MOST_CODES = 3


def render(reports: Sequence[Report]) -> str:
    """The findings as plain text; a matrix of layers and targets where there are several."""
    lines: list[str] = []
    for report in reports:
        if lines:
            lines.append("")
        if len(report.results) == 1:
            lines += _findings(report.results[0], report.source)
        else:
            lines += _matrix(report)
    return "\n".join(lines) + "\n"


def _findings(result: LintResult, source: str) -> Iterator[str]:
    grave = [item for item in result.findings if item.severity is not Severity.INFO]
    shared: dict[tuple[Finding, ...], list[str]] = {}
    for layer, findings in groupby(grave, key=lambda finding: finding.layer):
        same = tuple(replace(finding, layer="") for finding in findings)
        shared.setdefault(same, []).append(layer or THE_FILE)
    for same, layers in shared.items():
        yield one_line(", ".join(layers))
        for finding in same:
            head = f"  {finding.severity.value}: {finding.code} {finding.rule}"
            yield one_line(f"{head}: {finding.message}")
            yield one_line(f"    hint: {finding.hint}")
    small = [item for item in result.findings if item.severity is Severity.INFO]
    yield from by_rule(small)
    yield f"{source} for {result.target}: {_summary(result)}"


def by_rule(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each rule, with the first layer and what was found there; by code."""
    for code in sorted({finding.code for finding in findings}):
        first, *others = [finding for finding in findings if finding.code == code]
        place = first.layer or THE_FILE
        place += f" and {counted(len(others), 'other')}" if others else ""
        yield one_line(f"{first.severity.value}: {code} {first.rule}: {place}: {first.message}")


def one_line(text: str) -> str:
    """A text without line breaks: the names in a file may hold some."""
    return text.replace("\n", " ").replace("\r", " ")


def _summary(result: LintResult) -> str:
    layers = counted(len(result.layers), "binary layer")
    if result.findings:
        counts = [counted(result.count(severity), severity.value) for severity in _SUMMED]
        return ", ".join([layers, *counts] if result.layers else counts)
    return f"{layers}, no findings" if result.layers else "no binary layer found: nothing to check"


def _matrix(report: Report) -> Iterator[str]:
    """A row for each layer that is binary or that something was found of, a column a target."""
    named = [layer for result in report.results for layer in result.layers]
    named += [
        finding.layer
        for result in report.results
        for finding in result.findings
        if finding.severity is not Severity.INFO
    ]
    places = report.results[0].places
    rows = [["layer", *(result.target for result in report.results)]]
    for layer in sorted(dict.fromkeys(named), key=lambda name: places.get(name, len(places))):
        rows.append(
            [one_line(layer or THE_FILE), *(_cell(result, layer) for result in report.results)]
        )
    rows.append(["deployable", *(_verdict(result) for result in report.results)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    yield f"{report.source}: --target NAME tells what was found, `bibench rule CODE` why"


def _cell(result: LintResult, layer: str) -> str:
    """The worst that was found of a layer, with its codes."""
    found = [finding for finding in result.findings if finding.layer == layer]
    for severity in _SUMMED:
        codes = sorted({finding.code for finding in found if finding.severity is severity})
        if codes:
            more = f" +{len(codes) - _MOST_CODES}" if len(codes) > _MOST_CODES else ""
            return f"{severity.value} {' '.join(codes[:_MOST_CODES])}{more}"
    return "ok"


def _verdict(result: LintResult) -> str:
    errors = result.count(Severity.ERROR)
    return f"no, {counted(errors, 'error')}" if errors else "yes"


_SUMMED = (Severity.ERROR, Severity.WARNING)
