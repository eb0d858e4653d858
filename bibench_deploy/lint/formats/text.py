"""Findings for people: grouped by layer, each with its hint, and one line that sums up."""

from __future__ import annotations

from itertools import groupby

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import LintResult


def render(result: LintResult, source: str) -> str:
    """The findings of `source` as plain text."""
    lines: list[str] = []
    for layer, findings in groupby(result.findings, key=lambda finding: finding.layer):
        lines.append(layer)
        for finding in findings:
            head = f"  {finding.severity.value}: {finding.code} {finding.rule}"
            lines += [f"{head}: {finding.message}", f"    hint: {finding.hint}"]
    if result.layers == 0:
        summary = "no binary layer found: nothing to check"
    elif not result.findings:
        summary = f"{_counted(result.layers, 'binary layer')}, no findings"
    else:
        counts = [_counted(result.count(severity), severity.value) for severity in _SUMMED]
        summary = ", ".join([_counted(result.layers, "binary layer"), *counts])
    lines.append(f"{source} for {result.target}: {summary}")
    return "\n".join(lines) + "\n"


_SUMMED = (Severity.ERROR, Severity.WARNING)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
