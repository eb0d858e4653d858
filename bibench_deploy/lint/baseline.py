"""Known findings: a file that lists them, so that only new ones are reported.

A finding is known by source, target, rule and layer; its message may change.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bibench_deploy.errors import SettingsError
from bibench_deploy.lint.runner import Report

_KIND = "bibench-lint-baseline"
_SCHEMA_VERSION = 1
_FIELDS = ("source", "target", "rule", "layer")
Known = frozenset[tuple[str, ...]]


def read_baseline(path: Path) -> Known:
    """The findings that a file lists, as (source, target, rule, layer).

    Raises:
        SettingsError: the file is missing, or no baseline.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != _KIND:
            raise ValueError(content["kind"])
        if content["schema_version"] != _SCHEMA_VERSION:
            raise SettingsError(f"{path}: a baseline of another version; write it again")
        return frozenset(tuple(str(entry[key]) for key in _FIELDS) for entry in content["findings"])
    except OSError as error:
        raise SettingsError(
            f"{path}: no baseline there ({error.strerror}); make it with --write-baseline"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(f"{path}: no baseline; make it with --write-baseline") from error


def write_baseline(path: Path, reports: Sequence[Report]) -> int:
    """Write all findings of reports as known; gives how many they are.

    Raises:
        SettingsError: nothing can be written there; a baseline that was there stays.
    """
    entries = [
        dict(zip(_FIELDS, (report.source, result.target, item.rule, item.layer), strict=True))
        for report in reports
        for result in report.results
        for item in result.findings
    ]
    content = {"kind": _KIND, "schema_version": _SCHEMA_VERSION, "findings": entries}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)  # noqa: PTH105 - the one call that is atomic everywhere
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise SettingsError(
            f"{path}: cannot be written ({error.strerror}); name another --baseline"
        ) from error
    return len(entries)


def without_known(report: Report, known: Known) -> Report:
    """A report of what a baseline does not list."""
    results = (
        replace(
            result,
            findings=tuple(
                item
                for item in result.findings
                if (report.source, result.target, item.rule, item.layer) not in known
            ),
        )
        for result in report.results
    )
    return replace(report, results=tuple(results))
