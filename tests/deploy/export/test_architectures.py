"""Every architecture and algorithm of bibench_train reaches LCE, equal sign by sign."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bibench_deploy import export_model
from bibench_train import architectures

# Every architecture, every algorithm, every kind of size: even, odd, and such that a
# stride-2 layer sees both; not their full product, which would take half an hour.
CASES = [
    ("resnet20", "bnn", 32, {}),
    ("resnet20", "bireal", 33, {}),
    ("resnet20", "reactnet", 65, {}),
    ("vgg_small", "reactnet", 32, {}),
    ("resnet18", "bireal", 32, {"form": "cifar"}),
    ("resnet18", "reactnet", 33, {"form": "cifar", "downsample": "binary"}),
    ("resnet18", "bnn", 65, {"form": "imagenet"}),
    ("resnet18", "bireal", 224, {"form": "imagenet", "num_classes": 1000}),
    ("resnet34", "reactnet", 32, {"form": "cifar"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "algorithm", "size", "options"), CASES)
def test_an_untrained_network_is_exported_and_proved(
    name: str, algorithm: str, size: int, options: dict[str, object], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = architectures.build(name, algorithm=algorithm, **options)
    for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.bias, std=0.1)
    shape = (1, 3, size, size)
    artifact = export_model(model, torch.zeros(shape), target="lce", out=tmp_path / "net")
    verification = artifact.manifest["verification"]
    residency, parity = verification["residency"], verification["parity"]
    assert residency["resident"] == residency["intended"] > 0
    for step in ("torch_to_onnx", "onnx_to_target"):
        assert parity[step]["unexplained_flips"] == 0
        assert parity[step]["max_abs_error_same_signs"] < 1e-3
