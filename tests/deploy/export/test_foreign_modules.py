"""Networks as strangers write them, with nothing of bibench in them, reach LCE sign by sign."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bibench_deploy import export_model
from bibench_deploy.errors import LoweringError
from bibench_deploy.export.pipeline import export_source
from bibench_deploy.export.source import resolve_source


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class ScaledConv2d(nn.Conv2d):
    """mean|W| · sign(W), by straight-through arithmetic; signs by an autograd function."""

    def forward(self, x):
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        clipped = self.weight.clamp(-1, 1)
        weight = (scale * torch.sign(self.weight)).detach() - clipped.detach() + clipped
        return self._conv_forward(_Sign.apply(x), weight, self.bias)


class ComparedConv2d(nn.Conv2d):
    """Signs of activations and weights by a comparison; padded with −1."""

    def forward(self, x):
        signs = torch.where(x > 0, 1.0, -1.0)
        padded = F.pad(signs, (1, 1, 1, 1), value=-1.0)
        return self._conv_forward(padded, torch.where(self.weight > 0, 1.0, -1.0), self.bias)


class SignLinear(nn.Linear):
    """Flattens behind the sign."""

    def forward(self, x):
        return F.linear(_Sign.apply(x).flatten(1), torch.sign(self.weight), self.bias)


class BehindRelu(nn.Module):
    """Activations of 0 and 1, groups, an even kernel, zero weights, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU())
        self.one = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.two = nn.Conv2d(32, 64, 2, 2, groups=2)
        self.head = SignLinear(64 * 4 * 4, 10)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 2)
        x = self.norm(F.conv2d(torch.sign(x), torch.sign(self.one.weight), padding=1))
        weight = self.two.weight.sign() * (self.two.weight.abs() > 0.01)
        x = F.conv2d(_Sign.apply(x), weight, self.two.bias, 2, groups=2)
        return self.head(x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, ::2, ::2])


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, conv):
        super().__init__()
        padding = 0 if conv is ComparedConv2d else 1
        self.conv = conv(inputs, outputs, 3, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False)
            )

    def forward(self, x):
        return self.norm(self.conv(x)) + self.shortcut(x)


class Residual(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            Block(32, 32, 1, conv),
            nn.PReLU(32),
            Block(32, 64, 2, conv),
            nn.Hardtanh(),
            Block(64, 64, 1, conv),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Sound(nn.Module):
    """A network on sequences, [N, 1, L]."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, 32, 7, 2, 3), nn.BatchNorm1d(32))
        self.conv = nn.Conv1d(32, 48, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm1d(48)
        self.head = nn.Linear(48, 4)

    def forward(self, x):
        x = F.max_pool1d(self.stem(x), 2)
        weight = self.conv.weight.sign() * self.conv.weight.abs().mean((1, 2), keepdim=True)
        x = self.norm(F.conv1d(_Sign.apply(x), weight, stride=2, padding=2))
        return self.head(F.adaptive_avg_pool1d(x, 1).flatten(1))


class RescaledConv2d(nn.Conv2d):
    """XNOR-Net's K as many write it: one number for each image, on the signs."""

    def forward(self, x):
        factor = x.abs().mean((1, 2, 3), keepdim=True)
        return self._conv_forward(_Sign.apply(x) * factor, torch.sign(self.weight), self.bias)


def settled(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """In eval mode, its batch norm as if it had been trained."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = None
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.randn(8, *shape[1:]))
    return model.eval()


IMAGE = (1, 3, 32, 32)
CASES = {
    "activations of 0 and 1, groups, zero weights": (BehindRelu, IMAGE, 3),
    "straight-through arithmetic": (lambda: Residual(ScaledConv2d), IMAGE, 3),
    "comparisons, padded with -1": (lambda: Residual(ComparedConv2d), IMAGE, 3),
    "sequences": (Sound, (1, 1, 250), 1),
}


FAST = "activations of 0 and 1, groups, zero weights"


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in CASES]
)
def test_a_strangers_network_is_exported_and_proved(case, tmp_path: Path) -> None:
    make, shape, layers = CASES[case]
    torch.manual_seed(0)
    model = settled(make(), shape)
    artifact = export_model(model, torch.zeros(shape), out=tmp_path / "net")
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": layers, "resident": layers}
    for step in ("torch_to_onnx", "onnx_to_target"):
        parity = verification["parity"][step]
        assert parity["unexplained_flips"] == 0, step
        assert len(parity["layers"]) == layers
        assert parity["max_abs_error_same_signs"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("opset", [11, 13, 17])
def test_a_file_of_the_older_exporter_is_exported_and_proved(opset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = settled(Residual(ScaledConv2d), IMAGE)
    path = tmp_path / "stranger.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls this exporter deprecated
        torch.onnx.export(model, (torch.zeros(IMAGE),), path, dynamo=False, opset_version=opset)
    artifact = export_source(resolve_source(str(path)), target="lce", out=tmp_path / "net")
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": 3, "resident": 3}
    assert verification["parity"]["onnx_to_target"]["unexplained_flips"] == 0


def test_a_factor_computed_from_the_activations_is_refused(tmp_path: Path) -> None:
    model = settled(Residual(RescaledConv2d), IMAGE)
    with pytest.raises(LoweringError, match="BIB202 re-scaled at run time"):
        export_model(model, torch.zeros(IMAGE), out=tmp_path / "net")
    assert not (tmp_path / "net").exists()


class WeightsOnly(nn.Module):
    """Binary weights behind a float map: no layer for one bit, and no mistake of ours."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return F.conv2d(self.stem(x), torch.sign(self.conv.weight))


def test_what_only_looks_binary_is_told_and_stays_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact = export_model(WeightsOnly().eval(), torch.zeros(1, 3, 8, 8), out=tmp_path / "net")
    (miss,) = artifact.manifest["unproven"]
    assert miss["reason"].startswith("its weights hold one magnitude per channel, but its input")
    assert artifact.manifest["verification"]["residency"] == {"intended": 0, "resident": 0}
    assert artifact.manifest["layers"][1]["kernel"] == "CONV_2D"


def test_a_free_batch_becomes_one_and_that_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "free.onnx"
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        torch.onnx.export(
            WeightsOnly().eval(),
            (torch.zeros(2, 3, 8, 8),),
            path,
            dynamo=True,
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    artifact = export_source(resolve_source(str(path)), target="lce", out=tmp_path / "net")
    (note,) = artifact.manifest["notes"]
    assert "batch" in note
    assert artifact.manifest["input"]["shape"] == [1, 8, 8, 3]
