"""Run every rule over a graph, and put what the target refuses beside it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules import load_all
from bibench_deploy.targets._target import DEFAULT_OPTIONS, Target, WriteOptions


@dataclass(frozen=True)
class LintResult:
    """What linting a graph for one target gave.

    Attributes:
        target: the target's name.
        layers: how many binary layers were checked.
        findings: by layer in graph order, then by code; the graph as a whole comes first.
    """

    target: str
    layers: int
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of one severity."""
        return sum(finding.severity is severity for finding in self.findings)


def lint_graph(
    model: ir.Model, target: Target, options: WriteOptions = DEFAULT_OPTIONS
) -> LintResult:
    """Check a graph against every rule for one target.

    Args:
        model: the graph, as `load_graph` gives it.
        target: what it shall run on; what it refuses are the errors.
        options: what the user would choose at the export.
    """
    rules = {rule.name: rule for rule in load_all()}
    network = Network(model, tuple(binary_convs(model)), target)
    errors = [
        Finding(
            rules[refusal.rule].code,
            refusal.rule,
            Severity.ERROR,
            refusal.node,
            refusal.message,
            refusal.hint,
        )
        for refusal in target.refusals(model, options)
    ]
    refused = {(finding.rule, finding.layer) for finding in errors}
    others = [
        finding
        for rule in rules.values()
        for finding in rule.findings(network)
        if (finding.rule, finding.layer) not in refused
    ]
    places = {node.name: place for place, node in enumerate(model.graph)}
    findings = sorted(
        [*errors, *others],
        key=lambda item: (places.get(item.layer, len(places)) if item.layer else -1, item.code),
    )
    return LintResult(target.name, len(network.convs), tuple(findings))
