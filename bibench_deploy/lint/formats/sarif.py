"""Findings as SARIF 2.1.0 (OASIS), for code scanning: a run for each target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules import Document, document_of
from bibench_deploy.lint.runner import Report, rules_by_name

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def render(reports: Sequence[Report]) -> str:
    """A SARIF log, one line per value."""
    targets = list(dict.fromkeys(result.target for item in reports for result in item.results))
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [_run(reports, target) for target in targets],
    }
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _run(reports: Sequence[Report], target: str) -> dict[str, Any]:
    documents = [document_of(rule) for rule in rules_by_name().values()]
    places = {document.code: place for place, document in enumerate(documents)}
    return {
        "tool": {
            "driver": {
                "name": "bibench",
                "semanticVersion": version("bibench"),
                "rules": [_rule(document) for document in documents],
            }
        },
        # Runs of several targets are kept apart by this.
        "automationDetails": {"id": f"bibench-lint/{target}/"},
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(finding, report.source, places[finding.code])
            for report in reports
            for result in report.results
            if result.target == target
            for finding in result.findings
        ],
    }


def _rule(document: Document) -> dict[str, Any]:
    return {
        "id": document.code,
        "name": document.name,
        "shortDescription": {"text": document.summary},
        "fullDescription": {"text": document.why},
        "help": {"text": document.text},
    }


def _result(finding: Finding, source: str, place: int) -> dict[str, Any]:
    location: dict[str, Any] = {
        # An .onnx file has no lines: the layer is the place, and viewers want a line besides.
        "physicalLocation": {
            "artifactLocation": {"uri": quote(source)},
            "region": {"startLine": 1},
        }
    }
    if finding.layer:
        location["logicalLocations"] = [{"name": finding.layer, "kind": "element"}]
    where = f"{finding.layer}: " if finding.layer else ""
    return {
        "ruleId": finding.code,
        "ruleIndex": place,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{where}{finding.message}; {finding.hint}"},
        "locations": [location],
        "partialFingerprints": {"bibenchRuleAndLayer/v1": finding.fingerprint},
    }
