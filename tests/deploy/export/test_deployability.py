"""What `bibench train --list` says of targets, against what lint finds in real graphs."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnx_ir as ir
import pytest
import torch
from torch import nn

from bibench_deploy import targets
from bibench_deploy.export.deployability import granularity_of, targets_for
from bibench_deploy.export.to_onnx import export_onnx
from bibench_deploy.graph.facts import Granularity, state_facts
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import lint_graph
from bibench_train import algorithms
from bibench_train.algorithms._algorithm import Algorithm
from bibench_train.harden import harden
from bibench_train.layers import BinaryConv2d, set_output_sizes

EPOCHS = 200


@pytest.fixture(scope="module")
def graph_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ir.Model]:
    """graph_of(algorithm): one convolution and its batch norm, finished and trained a little."""
    folder, made = tmp_path_factory.mktemp("graphs"), {}

    def make(name: str) -> ir.Model:
        if name not in made:
            torch.manual_seed(0)
            layer = BinaryConv2d(algorithms.load(name), 4, 4, 3, bias=False)
            set_output_sizes(layer, (4, 8, 8))
            layer.binarizer.start_epoch(EPOCHS - 1, EPOCHS)
            for parameter in layer.binarizer.parameters():
                parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
            network = nn.Sequential(nn.BatchNorm2d(4), layer, nn.BatchNorm2d(4))
            path = folder / f"{name}.onnx"
            export_onnx(harden(network), torch.zeros(1, 4, 8, 8), path)
            made[name] = load_graph(path)
        return made[name]

    return make


def load(name: str) -> Algorithm:
    algorithm = algorithms.load(name)
    assert algorithm is not None
    return algorithm


@pytest.mark.parametrize("name", algorithms.names())
@pytest.mark.parametrize("target", targets.names())
def test_a_target_is_listed_where_lint_finds_no_error_and_only_there(
    name: str, target: str, graph_of: Callable[[str], ir.Model]
) -> None:
    result = lint_graph(graph_of(name), targets.load(target))
    assert len(result.layers) == 1
    is_held = result.count(Severity.ERROR) == 0
    assert is_held == (target in targets_for(load(name)))
    if is_held:
        assert targets.load(target).refusals(graph_of(name)) == []


@pytest.mark.parametrize("name", algorithms.names())
def test_the_facts_of_an_algorithm_are_those_of_its_graph(
    name: str, graph_of: Callable[[str], ir.Model]
) -> None:
    (facts,) = state_facts(graph_of(name))
    assert facts.scale is granularity_of(load(name))
    assert facts.is_rescaled_by_activation == load(name).rescales_by_activation
    assert facts.has_mean_shift == load(name).shifts_input


@pytest.mark.parametrize(
    ("name", "codes"), [("xnor", {"BIB202"}), ("xnorpp", {"BIB201"}), ("bireal", set())]
)
def test_lce_refuses_run_time_and_spatial_scales_by_their_own_rules(
    name: str, codes: set[str], graph_of: Callable[[str], ir.Model]
) -> None:
    findings = lint_graph(graph_of(name), targets.load("lce")).findings
    errors = {finding.code for finding in findings if finding.severity is Severity.ERROR}
    assert errors == codes


def test_the_table_of_algorithms_names_the_targets_or_the_rule_that_refuses(
    graph_of: Callable[[str], ir.Model],
) -> None:
    lines = (Path(__file__).parents[3] / "docs" / "algorithms.md").read_text().splitlines()
    found = {line.split("`")[1]: line.split("|")[-2].strip() for line in lines if line[:3] == "| `"}
    for name in algorithms.names():
        held = targets_for(load(name))
        findings = lint_graph(graph_of(name), targets.load("lce")).findings
        codes = [finding.code for finding in findings if finding.severity is Severity.ERROR]
        expected = [f"`{target}`" for target in held] or [f"none: {code}" for code in codes]
        assert found[name] == ", ".join(expected), name


def test_a_target_that_holds_another_scale_is_listed_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = {"float": frozenset(Granularity), "plain": frozenset([Granularity.NONE])}
    monkeypatch.setattr(targets, "names", lambda: list(held))
    monkeypatch.setattr(
        targets,
        "load",
        lambda name: SimpleNamespace(name=name, held_scales=held[name], holds_mean_shift=True),
    )
    assert targets_for(load("bnn")) == ["float", "plain"]
    for name in ("bireal", "xnor", "xnorpp"):
        assert targets_for(load(name)) == ["float"]


def test_a_target_that_holds_no_mean_shift_is_not_listed_for_an_algorithm_that_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = frozenset(Granularity)
    plain = SimpleNamespace(name="plain", held_scales=everything, holds_mean_shift=False)
    monkeypatch.setattr(targets, "names", lambda: ["plain"])
    monkeypatch.setattr(targets, "load", lambda _: plain)
    assert targets_for(load("bireal")) == ["plain"]
    assert targets_for(load("reactnet")) == []
