"""Findings for programs: one JSON object with schema_version, as docs/lint.md describes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import LintResult, Report

SCHEMA_VERSION = 1


def render(reports: Sequence[Report]) -> str:
    """The findings of every source and target as a JSON object."""
    results = [result for report in reports for result in report.results]
    content = {
        "schema_version": SCHEMA_VERSION,
        "counts": _counts(results),
        "results": [
            {
                "source": report.source,
                "target": result.target,
                "binary_layers": len(result.layers),
                "deployable": not result.count(Severity.ERROR),
                "counts": _counts([result]),
                "findings": [
                    {**finding.to_json(), "fingerprint": finding.fingerprint}
                    for finding in result.findings
                ],
            }
            for report in reports
            for result in report.results
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _counts(results: Sequence[LintResult]) -> dict[str, Any]:
    return {
        severity.value: sum(result.count(severity) for result in results) for severity in Severity
    }
