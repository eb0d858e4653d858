from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules._rule import Defect, Rule


def test_a_defect_becomes_a_finding_with_the_rules_names() -> None:
    def check(network):
        yield Defect("conv1", Severity.INFO, f"conv1 of {network}", "leave it")
        yield Defect("", Severity.WARNING, "worse", "change it")

    assert list(Rule("BIB999", "sample", check).findings("the network")) == [
        Finding("BIB999", "sample", Severity.INFO, "conv1", "conv1 of the network", "leave it"),
        Finding("BIB999", "sample", Severity.WARNING, "", "worse", "change it"),
    ]


def test_a_rule_that_only_targets_refuse_by_finds_nothing_itself() -> None:
    assert list(Rule("BIB999", "sample").findings("the network")) == []
