"""Run every rule over every binary layer of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from bibench_deploy.graph.facts import state_facts
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.rules import load_all
from bibench_deploy.targets._target import Target


@dataclass(frozen=True)
class LintResult:
    """What linting a graph for one target gave.

    Attributes:
        target: the target's name.
        layers: how many binary layers were checked.
        findings: by layer in graph order, then by code.
    """

    target: str
    layers: int
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of one severity."""
        return sum(finding.severity is severity for finding in self.findings)


def lint_graph(model: ir.Model, target: Target) -> LintResult:
    """Check a graph against every rule for one target.

    Args:
        model: the graph, as `load_graph` gives it.
        target: what it shall run on.
    """
    facts = state_facts(model)
    rules = load_all()
    findings = [
        finding for layer in facts for rule in rules for finding in rule.findings(layer, target)
    ]
    return LintResult(target.name, len(facts), tuple(findings))
