"""Findings for programs: one JSON object with schema_version, as docs/rules.md describes."""

from __future__ import annotations

import json

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import LintResult

SCHEMA_VERSION = 1


def render(result: LintResult, source: str) -> str:
    """The findings of `source` as a JSON object."""
    return (
        json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "source": source,
                "target": result.target,
                "binary_layers": result.layers,
                "counts": {severity.value: result.count(severity) for severity in Severity},
                "findings": [finding.to_json() for finding in result.findings],
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )
