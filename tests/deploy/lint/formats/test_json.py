import json

from bibench_deploy.lint.formats.json import render


def test_findings_are_printed(result, snapshot) -> None:
    assert render(result, "resnet20-reactnet-digits") == snapshot


def test_the_output_is_one_json_object(result) -> None:
    content = json.loads(render(result, "models/ü"))
    assert content["source"] == "models/ü"
    assert content["binary_layers"] == result.layers
    assert len(content["findings"]) == len(result.findings) == sum(content["counts"].values())
