"""Every architecture and algorithm of bibench_train reaches LCE, equal sign by sign."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
import torch

from bibench_deploy import export_model
from bibench_deploy.errors import LoweringError
from bibench_deploy.export.deployability import targets_for
from bibench_train import algorithms, architectures
from bibench_train.layers import binary_layers

EPOCHS = 200
# Every architecture, every algorithm, every kind of size: even, odd, and such that a
# stride-2 layer sees both; not their full product, which would take hours.
SIZES = dict(zip(algorithms.names(), cycle([32, 33, 65]), strict=False))
CASES = [
    *(("resnet20", name, size, {}) for name, size in SIZES.items()),
    ("vgg_small", "reactnet", 32, {}),
    ("resnet18", "bireal", 32, {"form": "cifar"}),
    ("resnet18", "reactnet", 33, {"form": "cifar", "downsample": "binary"}),
    ("resnet18", "bnn", 65, {"form": "imagenet"}),
    ("resnet18", "bireal", 224, {"form": "imagenet", "num_classes": 1000}),
    ("resnet34", "reactnet", 32, {"form": "cifar"}),
]
REFUSED = {"xnor": "BIB202", "xnorpp": "BIB201"}


def finished(name: str, algorithm: str, size: int, options: dict[str, object]) -> torch.nn.Module:
    """The network at the end of its schedule, its factors moved, its statistics settled."""
    torch.manual_seed(0)
    model = architectures.build(name, algorithm=algorithm, image_size=(size, size), **options)
    for _, layer in binary_layers(model):
        layer.binarizer.start_epoch(EPOCHS - 1, EPOCHS)
        for parameter in layer.binarizer.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = None  # the mean over all batches, not a moving one
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, size, size))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "algorithm", "size", "options"), [case for case in CASES if case[1] not in REFUSED]
)
def test_a_finished_network_is_exported_and_proved(
    name: str, algorithm: str, size: int, options: dict[str, object], tmp_path: Path
) -> None:
    model = finished(name, algorithm, size, options)
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
    model = finished("resnet20", algorithm, SIZES[algorithm], {})
    shape = (1, 3, SIZES[algorithm], SIZES[algorithm])
    with pytest.raises(LoweringError) as raised:
        export_model(model, torch.zeros(shape), target="lce", out=tmp_path / "net")
    assert len(raised.value.reasons) == 18
    assert all(f": {REFUSED[algorithm]} " in reason for reason in raised.value.reasons)
    assert list(tmp_path.iterdir()) == []


def test_the_algorithms_that_are_refused_are_those_that_are_not_listed_for_the_target() -> None:
    found = {name: algorithms.load(name) for name in algorithms.names()}
    assert {name for name, a in found.items() if "lce" not in targets_for(a)} == set(REFUSED)
