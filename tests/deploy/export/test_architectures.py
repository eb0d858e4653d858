"""Every architecture and algorithm of bibench_train reaches every target, equal sign by sign."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.lce_parity import export_once, finished_network
from bibench_deploy import export_model, targets
from bibench_deploy.errors import LoweringError
from bibench_deploy.export.deployability import targets_for
from bibench_train import algorithms, architectures
from bibench_train.layers import binary_layers
from tests.deploy.export.test_lint_contract import ALL_ALLOWED, EVERY, check_agreement

SMALL = 16
# Its fully connected layers are made for maps of one size.
FIXED = {"vgg_small": 32}
# Sizes at which a stride-2 layer sees even and odd maps, and a map as small as the kernel.
CASES = [
    ("resnet20", "recu", 33),
    ("resnet18", "reactnet", 33),
    ("resnet18", "bnn", 65),
    ("resnet18", "bireal", 224),
    ("resnet34", "bnext", 32),
]
REFUSED = {"xnor": "BIB202", "xnorpp": "BIB201"}
# What no option makes these targets hold.
NOT_HELD = {("dabnn", "xnor"), ("dabnn", "xnorpp")}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", architectures.names())
@pytest.mark.parametrize("algorithm", algorithms.names())
def test_every_target_holds_what_lint_says_and_computes_it_sign_by_sign(
    algorithm: str, architecture: str, tmp_path: Path
) -> None:
    key = (algorithm, architecture, FIXED.get(architecture, SMALL))
    exported = export_once(key, 2, tmp_path / "model.onnx")
    check_agreement(exported.graph, algorithm)
    proofs = [exported.by_torch]
    for target in EVERY:
        options = targets.held_options(target, ALL_ALLOWED)
        is_held = not target.refusals(exported.graph, options)
        assert is_held is ((target.name, algorithm) not in NOT_HELD), target.name
        if is_held:
            folder = tmp_path / target.name
            folder.mkdir()
            with target.open_writer() as writer:
                proofs.append(exported.compare_with(target, writer, folder, options))
    for parity in proofs:
        assert (parity.inputs, parity.unexplained_flips) == (2, 0)
        assert sum(layer.signs for layer in parity.layers) > 0
        assert parity.max_abs_error_same_signs < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "algorithm", "size"), CASES)
def test_a_finished_network_is_exported_and_proved(
    name: str, algorithm: str, size: int, tmp_path: Path
) -> None:
    model = finished_network(algorithm, name, size)
    shape = (1, 3, size, size)
    artifact = export_model(model, torch.zeros(shape), target="lce", out=tmp_path / "net")
    verification = artifact.manifest["verification"]
    residency, parity = verification["residency"], verification["parity"]
    assert residency["resident"] == residency["intended"] == len(list(binary_layers(model)))
    for step in ("torch_to_onnx", "onnx_to_target"):
        assert parity[step]["unexplained_flips"] == 0
        assert parity[step]["max_abs_error_same_signs"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", REFUSED)
def test_a_finished_network_with_a_scale_that_nothing_folds_is_refused_layer_by_layer(
    algorithm: str, tmp_path: Path
) -> None:
    model = finished_network(algorithm, "resnet20", SMALL)
    shape = (1, 3, SMALL, SMALL)
    with pytest.raises(LoweringError) as raised:
        export_model(model, torch.zeros(shape), target="lce", out=tmp_path / "net")
    assert len(raised.value.reasons) == 18
    assert all(f": {REFUSED[algorithm]} " in reason for reason in raised.value.reasons)
    assert list(tmp_path.iterdir()) == []


def test_the_algorithms_that_are_refused_are_those_that_are_not_listed_for_the_target() -> None:
    found = {name: algorithms.load(name) for name in algorithms.names()}
    assert {name for name, a in found.items() if "lce" not in targets_for(a)} == set(REFUSED)
