import re

from bibench_deploy.lint.formats.github import render

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
