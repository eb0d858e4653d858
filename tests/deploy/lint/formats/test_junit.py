from xml.etree import ElementTree as ET

from bibench_deploy.cli._terminal import printable
from bibench_deploy.lint.formats.junit import render
from bibench_deploy.lint.formats.text import one_line


def parsed(reports) -> ET.Element:
    # Control characters are no XML; the command line lets none through.
    return ET.fromstring(printable(render(reports)).partition("\n")[2])  # noqa: S314 - our own


def test_test_cases_are_printed(reports, snapshot) -> None:
    assert render(reports) == snapshot


def test_the_numbers_of_a_suite_are_those_of_its_test_cases(reports) -> None:
    root = parsed(reports)
    suites = root.findall("testsuite")
    assert len(suites) == sum(len(report.results) for report in reports)
    for suite in suites:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert int(root.attrib["tests"]) == sum(int(suite.attrib["tests"]) for suite in suites)


def test_every_layer_is_a_test_case_and_only_errors_fail(reports) -> None:
    root = parsed(reports)
    results = [result for report in reports for result in report.results]
    for suite, result in zip(root.findall("testsuite"), results, strict=True):
        names = {case.attrib["name"] for case in suite}
        failed = {case.attrib["name"] for case in suite if case.find("failure") is not None}
        assert set(result.layers) <= names
        errors = {item.layer for item in result.findings if item.severity == "error"}
        assert failed == {printable(one_line(layer)) for layer in errors}
