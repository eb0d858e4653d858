from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules._rule import Defect, Rule


def test_a_defect_becomes_a_finding_with_the_rules_and_the_layers_name() -> None:
    class Facts:
        name = "conv1"

    def check(facts, target):
        yield Defect(Severity.INFO, f"{facts.name} on {target}", "leave it")
        yield Defect(Severity.ERROR, "worse", "change it")

    found = list(Rule("BIB999", "sample", check).findings(Facts(), "board"))
    assert found == [
        Finding("BIB999", "sample", Severity.INFO, "conv1", "conv1 on board", "leave it"),
        Finding("BIB999", "sample", Severity.ERROR, "conv1", "worse", "change it"),
    ]
