"""Every architecture and algorithm of bibench_train reaches LCE, equal sign by sign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.lce_parity import finished_network, run_case
from bibench_deploy import export_model
from bibench_deploy.errors import LoweringError
from bibench_deploy.export.deployability import targets_for
from bibench_deploy.targets._target import Writer
from bibench_deploy.targets.lce import TARGET
from bibench_train import algorithms, architectures
from bibench_train.layers import binary_layers

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


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    """One converter for all networks."""
    with TARGET.open_writer() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("architecture", architectures.names())
@pytest.mark.parametrize("algorithm", algorithms.names())
def test_every_algorithm_in_every_architecture_is_equal_sign_by_sign(
    algorithm: str, architecture: str, writer: Writer
) -> None:
    row = run_case((algorithm, architecture, FIXED.get(architecture, SMALL)), 2, writer)
    assert (row.failure, row.unexplained, row.inputs) == ("", 0, 2)
    assert row.signs > 0
    assert row.max_error < 1e-4


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
