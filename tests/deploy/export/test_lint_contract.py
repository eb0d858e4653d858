"""Lint and export agree: every algorithm, for every target; test_architectures.py has the rest.

The lint side is a finding of severity error, the export side what the target refuses; both
run over whatever targets and algorithms are there.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import onnx_ir as ir
import pytest
import torch

from bibench_deploy import lint_model, targets
from bibench_deploy.errors import LoweringError
from bibench_deploy.export.deployability import granularity_of
from bibench_deploy.export.pipeline import check_held, write_onnx
from bibench_deploy.export.source import from_module
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.rules import load_all
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets._target import DEFAULT_OPTIONS, WriteOptions
from bibench_train import algorithms

EVERY = [targets.load(name) for name in targets.names()]
ALLOWED = {
    field.name: True for field in fields(WriteOptions) if field.name.startswith("allow_")
} | ({"padding": "exact"} if hasattr(DEFAULT_OPTIONS, "padding") else {})
ALL_ALLOWED = WriteOptions(**ALLOWED)
RULES = {rule.name: rule.code for rule in load_all()}
SCALES = {"scale-granularity", "activation-rescaling"}


def check_agreement(graph: ir.Model, algorithm: str) -> None:
    for target, chosen in product(EVERY, [DEFAULT_OPTIONS, ALL_ALLOWED]):
        options = targets.held_options(target, chosen)
        try:
            result, is_refused = check_held(graph, target, options), False
        except LoweringError:
            result, is_refused = lint_graph(graph, target, options), True
        errors = [item for item in result.findings if item.severity is Severity.ERROR]
        assert {(item.rule, item.layer) for item in errors} == {
            (refusal.rule, refusal.node) for refusal in target.refusals(graph, options)
        }
        assert all(RULES[item.rule] == item.code for item in errors)
        assert bool(errors) is is_refused
        # What --list says of an algorithm by its scales is what lint says of its network.
        is_held = granularity_of(algorithms.load(algorithm)) in target.held_scales
        scales = SCALES & {item.rule for item in errors}
        assert bool(scales) is not (is_held or options.allow_unfused_scales)


@pytest.mark.parametrize("algorithm", algorithms.names())
def test_lint_and_export_agree_on_every_algorithm(algorithm, make_network, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(from_module(make_network(algorithm), (1, 3, 8, 8), algorithm), path)
    check_agreement(load_graph(path), algorithm)


def test_a_module_is_linted_as_it_would_be_exported(make_network) -> None:
    result = lint_model(make_network("xnor"), torch.zeros(1, 3, 8, 8))
    assert {item.code for item in result.findings} >= {"BIB202"}
    allowed = WriteOptions(allow_unfused_scales=True)
    again = lint_model(make_network("xnor"), torch.zeros(1, 3, 8, 8), options=allowed)
    assert {item.severity for item in again.findings if item.code == "BIB202"} == {Severity.WARNING}


@pytest.mark.parametrize("algorithm", ["biper", "bnext", "fda"])
def test_weights_that_are_not_binary_yet_are_one_finding(algorithm, make_network) -> None:
    result = lint_model(make_network(algorithm, 30), torch.zeros(1, 3, 8, 8))
    (finding,) = result.findings
    assert (finding.code, finding.rule) == ("BIB106", "soft-binarization")
    assert finding.severity is Severity.ERROR
    assert finding.layer == "block.conv1"


def test_a_module_without_an_input_is_a_wrong_call(make_network) -> None:
    with pytest.raises(TypeError, match="example_input"):
        lint_model(make_network("bnn"))
