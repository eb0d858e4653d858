import json

from bibench_deploy.lint.formats.json import render


def test_findings_are_printed(reports, snapshot) -> None:
    assert render(reports) == snapshot


def test_the_output_is_one_json_object_that_adds_up(reports) -> None:
    content = json.loads(render(reports))
    assert content["schema_version"] == 1
    expected = [(item.source, result.target) for item in reports for result in item.results]
    assert [(item["source"], item["target"]) for item in content["results"]] == expected
    for severity, count in content["counts"].items():
        assert count == sum(item["counts"][severity] for item in content["results"])
    for item in content["results"]:
        assert sum(item["counts"].values()) == len(item["findings"])
        assert item["deployable"] == (item["counts"]["error"] == 0)
