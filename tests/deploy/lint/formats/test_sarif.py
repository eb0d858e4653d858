import json

import pytest
import sarif_pydantic

from bibench_deploy.lint.formats.sarif import render
from bibench_deploy.lint.rules import load_all

LEVELS = {"error": "error", "warning": "warning", "info": "note"}


@pytest.fixture
def log(reports) -> dict:
    return json.loads(render(reports))


def test_it_is_a_log_of_version_2_1_0(log) -> None:
    assert log["version"] == "2.1.0"
    assert "sarif-schema-2.1.0.json" in log["$schema"]
    sarif_pydantic.Sarif.model_validate(log)


def test_there_is_a_run_for_each_target_and_a_result_for_each_finding(log, reports) -> None:
    for run in log["runs"]:
        target = run["automationDetails"]["id"].split("/")[1]
        found = [
            finding
            for report in reports
            for result in report.results
            if result.target == target
            for finding in result.findings
        ]
        assert [item["ruleId"] for item in run["results"]] == [item.code for item in found]
        assert [item["level"] for item in run["results"]] == [
            LEVELS[item.severity.value] for item in found
        ]
    ids = [run["automationDetails"]["id"] for run in log["runs"]]
    assert len(set(ids)) == len(ids) == len({r.target for item in reports for r in item.results})


def test_a_result_points_to_its_rule_and_its_layer(log) -> None:
    for run in log["runs"]:
        rules = run["tool"]["driver"]["rules"]
        assert [rule["id"] for rule in rules] == [rule.code for rule in load_all()]
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            (location,) = result["locations"]
            assert location["physicalLocation"]["artifactLocation"]["uri"].isascii()
            assert location["logicalLocations"][0]["name"]


def test_rules_explain_themselves(log) -> None:
    for rule in log["runs"][0]["tool"]["driver"]["rules"]:
        assert rule["shortDescription"]["text"].endswith(".")
        assert "Rests on:" in rule["help"]["text"]


def test_a_fingerprint_is_of_the_rule_and_the_layer(log) -> None:
    for run in log["runs"]:
        prints = [item["partialFingerprints"]["bibenchRuleAndLayer/v1"] for item in run["results"]]
        assert len(set(prints)) == len(prints)
        assert all(len(item) == 16 for item in prints)
