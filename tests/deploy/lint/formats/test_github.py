import re

from bibench_deploy.lint.formats.github import render
from bibench_deploy.lint.runner import LintResult, Report

COMMAND = re.compile(r"::(error|warning|notice) file=([^:,]+),title=([^:,]+)::(.+)")


def test_annotations_are_printed(reports, snapshot) -> None:
    assert render(reports) == snapshot


def test_every_line_but_the_summaries_is_one_command(reports) -> None:
    lines = render(reports).splitlines()
    summaries = sum(len(report.results) for report in reports)
    assert all(COMMAND.fullmatch(line) for line in lines[:-summaries])
    assert not any(line.startswith("::") for line in lines[-summaries:])


def test_what_stops_the_deployment_comes_first(reports) -> None:
    order = ["error", "warning", "notice"]
    kinds = [match[1] for line in render(reports).splitlines() if (match := COMMAND.match(line))]
    assert kinds == sorted(kinds, key=order.index)


def test_no_name_of_a_file_is_a_command() -> None:
    clean = (LintResult("lce", (), ()),)
    text = render([Report("::error::a.onnx", clean), Report("a\n::error::b.onnx", clean)])
    assert text.splitlines() == [
        "bibench: ::error::a.onnx for lce: 0 errors, 0 warnings, 0 infos",
        "bibench: a%0A::error::b.onnx for lce: 0 errors, 0 warnings, 0 infos",
    ]
