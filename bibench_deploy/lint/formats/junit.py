"""Findings as JUnit XML: a test suite for each source and target, a test case for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.formats.text import THE_FILE, one_line
from bibench_deploy.lint.runner import LintResult, Report


def render(reports: Sequence[Report]) -> str:
    """Errors are failures; a test case that passes holds its warnings as output."""
    suites = [_suite(report, result) for report in reports for result in report.results]
    root = ET.Element("testsuites", _totals(suites, name="bibench lint"))
    root.extend(suites)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: Report, result: LintResult) -> ET.Element:
    cases: dict[str, list[Finding]] = {name: [] for name in ("", *result.layers)}
    for finding in result.findings:
        cases.setdefault(finding.layer, []).append(finding)
    suite = ET.Element("testsuite")
    for layer, findings in cases.items():
        names = {
            "classname": f"{report.source} for {result.target}",
            "name": one_line(layer or THE_FILE),
        }
        case = ET.SubElement(suite, "testcase", names)
        errors = [item for item in findings if item.severity is Severity.ERROR]
        if errors:
            kinds = {"type": errors[0].code, "message": errors[0].message}
            ET.SubElement(case, "failure", kinds).text = _lines(errors)
        others = [item for item in findings if item.severity is not Severity.ERROR]
        if others:
            ET.SubElement(case, "system-out").text = _lines(others)
    failures = sum(case.find("failure") is not None for case in suite)
    suite.attrib.update(
        name=f"{report.source} for {result.target}", tests=str(len(suite)), failures=str(failures),
        errors="0",
    )  # fmt: skip
    return suite


def _lines(findings: Sequence[Finding]) -> str:
    return "\n".join(
        f"{item.severity.value}: {item.code} {item.rule}: {item.message}; {item.hint}"
        for item in findings
    )


def _totals(suites: Sequence[ET.Element], name: str) -> dict[str, str]:
    totals = {
        key: str(sum(int(suite.attrib[key]) for suite in suites))
        for key in ("tests", "failures", "errors")
    }
    return {"name": name, **totals}
