from bibench_deploy.lint.formats.text import render


def test_findings_are_printed(reports, snapshot) -> None:
    assert render(reports) == snapshot
