"""Findings as annotations of a GitHub workflow, and one line for each source and target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bibench_deploy.counted import counted
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.formats.text import THE_FILE
from bibench_deploy.lint.runner import Report

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(reports: Sequence[Report]) -> str:
    """Workflow commands, as docs.github.com lists them; what matters most comes first."""
    return "\n".join([*_annotations(reports), *_summaries(reports)]) + "\n"


def _annotations(reports: Sequence[Report]) -> Iterator[str]:
    # GitHub shows the first ten of a kind for each step: several layers share an annotation.
    for severity, command in _COMMANDS.items():
        for report in reports:
            for result in report.results:
                found = [item for item in result.findings if item.severity is severity]
                shared: dict[tuple[str, str, str, str], list[str]] = {}
                for item in found:
                    key = item.code, item.rule, item.message, item.hint
                    shared.setdefault(key, []).append(item.layer or THE_FILE)
                for (code, rule, message, hint), layers in shared.items():
                    title = _property(f"{code} {rule} for {result.target}")
                    text = _data(f"{', '.join(layers)}: {message}; {hint}")
                    yield f"::{command} file={_property(report.source)},title={title}::{text}"


def _summaries(reports: Sequence[Report]) -> Iterator[str]:
    for report in reports:
        for result in report.results:
            counts = ", ".join(
                counted(result.count(severity), severity.value) for severity in Severity
            )
            # Nothing that a file is called may stand where a command begins.
            yield _data(f"bibench: {report.source} for {result.target}: {counts}")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
