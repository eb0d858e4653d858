import pytest

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.lint import formats
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.runner import LintResult, Report


def test_what_people_ci_and_programs_read_is_there() -> None:
    assert {"github", "json", "junit", "sarif", "text"} <= set(formats.names())


@pytest.mark.parametrize("name", formats.names())
def test_every_format_names_source_and_target_and_ends_its_last_line(name) -> None:
    finding = Finding("BIB101", "sign-of-zero", Severity.ERROR, "conv", "wrong", "change it")
    text = formats.load(name)([Report("net.onnx", (LintResult("lce", ("conv",), (finding,)),))])
    assert "net.onnx" in text
    assert "lce" in text
    assert text.endswith("\n")


@pytest.mark.parametrize("name", formats.names())
def test_every_format_tells_what_was_found_and_where(name, reports) -> None:
    text = formats.load(name)(reports)
    for report in reports:
        for result in report.results:
            errors = [item for item in result.findings if item.severity == "error"]
            assert all(finding.code in text for finding in errors)


@pytest.mark.parametrize("name", ["github", "junit", "text"])
def test_a_name_with_line_breaks_starts_no_line_of_its_own(name) -> None:
    finding = Finding("BIB101", "sign-of-zero", Severity.ERROR, "a\n::error::b", "c\r\nd", "e")
    text = formats.load(name)(
        [Report("net.onnx", (LintResult("lce", ("a\n::error::b",), (finding,)),))]
    )
    assert not any(line.startswith("::error::b") for line in text.splitlines())


def test_an_unknown_format_lists_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as raised:
        formats.load("jsn")
    assert 'unknown lint format "jsn" (did you mean "json"?)' in str(raised.value)
    assert raised.value.valid == tuple(formats.names())
