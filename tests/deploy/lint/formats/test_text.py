from bibench_deploy.lint.formats.text import render


def test_findings_are_printed(result, snapshot) -> None:
    assert render(result, "resnet20-reactnet-digits") == snapshot
