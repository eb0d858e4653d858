"""Run every rule over a graph, and put what the target refuses beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from bibench_deploy.errors import UnfitGraphError
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lint.finding import Finding, Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules import load_all
from bibench_deploy.lint.rules._rule import Rule
from bibench_deploy.targets import held_options
from bibench_deploy.targets._target import DEFAULT_OPTIONS, Target, WriteOptions


@dataclass(frozen=True)
class LintResult:
    """What linting a graph for one target gave.

    Attributes:
        target: the target's name.
        layers: names of the binary layers that were checked, in graph order.
        findings: by layer in graph order, then by code; the graph as a whole comes first.
        places: name of a node → its place in the graph.
    """

    target: str
    layers: tuple[str, ...]
    findings: tuple[Finding, ...]
    places: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    def count(self, severity: Severity) -> int:
        """How many findings are of one severity."""
        return sum(finding.severity is severity for finding in self.findings)


@dataclass(frozen=True)
class Report:
    """What is printed of one source.

    Attributes:
        source: as the user named it; of a path, in its shortest form.
        results: one for each target that was asked about.
    """

    source: str
    results: tuple[LintResult, ...]


def lint_file(
    path: Path, targets: Sequence[Target], options: WriteOptions = DEFAULT_OPTIONS
) -> tuple[LintResult, ...]:
    """Check an .onnx file for several targets; each with what it has of the options.

    A file that is sound and that no target takes (of an old opset, of sizes that are dynamic or
    depend on what is fed, in half precision) is a finding; what cannot be read is an error.

    Raises:
        GraphError: the file cannot be read as an ONNX model.
    """
    try:
        model = load_graph(path)
    except UnfitGraphError as error:
        rule = rules_by_name()[error.rule]
        finding = Finding(
            rule.code, rule.name, Severity.ERROR, error.node, error.finding, error.hint
        )
        return tuple(LintResult(target.name, (), (finding,)) for target in targets)
    return tuple(lint_graph(model, target, held_options(target, options)) for target in targets)


def lint_graph(
    model: ir.Model, target: Target, options: WriteOptions = DEFAULT_OPTIONS
) -> LintResult:
    """Check a graph against every rule for one target.

    Args:
        model: the graph, as `load_graph` gives it.
        target: what it shall run on; what it refuses are the errors.
        options: what the user would choose at the export.
    """
    network = Network(model, target)
    found: dict[tuple[str, str], Finding] = {}
    for finding in _findings(network, options):
        # What the target says of a layer goes before what a rule says of every target.
        found.setdefault((finding.rule, finding.layer), finding)
    places = {"": -1} | {node.name or "": place for place, node in enumerate(model.graph)}
    findings = sorted(
        found.values(), key=lambda item: (places.get(item.layer, len(places)), item.code)
    )
    names = tuple(facts.name for facts in network.layers)
    return LintResult(target.name, names, tuple(findings), places)


def _findings(network: Network, options: WriteOptions) -> Iterator[Finding]:
    rules = rules_by_name()
    examination = network.target.examine(network.model, options)
    for item in examination.refusals:
        code = rules[item.rule].code
        yield Finding(code, item.rule, Severity.ERROR, item.node, item.message, item.hint)
    for cost in examination.costs:
        severity = Severity.INFO if cost.is_small else Severity.WARNING
        code = rules[cost.rule].code
        yield Finding(code, cost.rule, severity, cost.node, cost.message, cost.hint)
    for rule in rules.values():
        yield from rule.findings(network)


def rules_by_name() -> dict[str, Rule]:
    """Every rule, by name."""
    return {rule.name: rule for rule in load_all()}
