from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.formats.text import render
from bibench_deploy.lint.runner import LintResult, Report


def test_findings_are_printed(reports, snapshot) -> None:
    assert render(reports) == snapshot


def test_layers_of_which_the_same_was_found_share_their_lines() -> None:
    found = [
        Finding("BIB314", "clip-kept", Severity.WARNING, layer, message, "leave it out")
        for layer, message in [("h1", "5 passes"), ("h2", "3 passes"), ("h3", "5 passes")]
    ]
    lines = render([Report("net.onnx", (LintResult("dabnn", (), tuple(found)),))]).splitlines()
    assert [line for line in lines if not line.startswith(" ")][:-1] == ["h1, h3", "h2"]
    assert sum("5 passes" in line for line in lines) == 1
