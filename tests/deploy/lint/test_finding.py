import json

from bibench_deploy.lint.finding import Finding, Severity


def test_a_finding_is_json_by_its_field_names() -> None:
    finding = Finding("BIB101", "sign-of-zero", Severity.WARNING, "conv1", "0 becomes 0", "use >=")
    assert json.loads(json.dumps(finding.to_json())) == {
        "code": "BIB101",
        "rule": "sign-of-zero",
        "severity": "warning",
        "layer": "conv1",
        "message": "0 becomes 0",
        "hint": "use >=",
    }
