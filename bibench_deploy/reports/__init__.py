"""Turn measurements and findings into text, JSON, Markdown and HTML."""

from __future__ import annotations

from pathlib import Path

from bibench_deploy.artifact import write_text_atomically
from bibench_deploy.reports.comparison import comparison_document
from bibench_deploy.reports.content import Report, build_report
from bibench_deploy.reports.document import Document
from bibench_deploy.reports.formats import check_format, format_names, render
from bibench_deploy.reports.published import published_hardware_track

__all__ = [
    "Document",
    "Report",
    "build_report",
    "check_format",
    "comparison_document",
    "format_names",
    "published_hardware_track",
    "render",
    "write_report",
]


def write_report(report: Report | Document, path: Path, format_name: str | None = None) -> Path:
    """Write a report to a file, which appears whole or not at all.

    Args:
        report: what to write.
        path: the file; its folder is made where it is missing.
        format_name: by default what the file's name ends in.

    Returns:
        `path`.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: the format needs a library that is not installed.
    """
    text = render(report, format_name or path.suffix.removeprefix("."))
    write_text_atomically(path, text)
    return path
