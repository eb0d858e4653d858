"""Each way of writing a binarization that public code uses, through both exporters of PyTorch.

A form is exported, found to be binary with the levels, threshold and weights that it has, and
brought to the canonical form, which must compute what PyTorch computes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_deploy.export.to_onnx import export_onnx
from bibench_deploy.graph.facts import BinaryConv, Granularity, binary_convs
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lowering.canonical_binarization import canonical_binarization

EXPORTERS = [
    "dynamo",
    "TorchScript at opset 11",
    "TorchScript at opset 13",
    "TorchScript at opset 17",
]


def to_onnx(network: nn.Module, x: Tensor, exporter: str, path: Path) -> ir.Model:
    if exporter == "dynamo":
        export_onnx(network, x, path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch calls this exporter old: users have its files
            torch.onnx.export(
                network, (x,), path, dynamo=False, opset_version=int(exporter.split()[-1])
            )
    return load_graph(path)


class Layer(nn.Module):
    """Batch norm, an activation, a convolution by a weight, batch norm."""

    def __init__(self, activation: Callable, weight: Callable, bias: bool = False) -> None:
        super().__init__()
        self.before, self.after = nn.BatchNorm2d(6), nn.BatchNorm2d(5)
        self.latent = nn.Parameter(0.5 * torch.randn(5, 6, 3, 3))
        self.bias = nn.Parameter(torch.randn(5)) if bias else None
        self.shift = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.activation, self.weight = activation, weight
        for norm in (self.before, self.after):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.activation is rsign:
            x = x + self.shift
        product = F.conv2d(self.activation(x), self.weight(self.latent), self.bias, padding=1)
        return self.after(product)


def sign(x: Tensor) -> Tensor:
    return torch.sign(x)


def rsign(x: Tensor) -> Tensor:
    return torch.sign(x)


def ste(x: Tensor) -> Tensor:
    clipped = x.clamp(-1, 1)
    return (torch.sign(x) - clipped).detach() + clipped


def ste_swapped(x: Tensor) -> Tensor:
    clipped = F.hardtanh(x)
    return clipped + (torch.sign(clipped) - clipped).detach()


def ste_unclipped(x: Tensor) -> Tensor:
    return x + (torch.where(x >= 0, 1.0, -1.0) - x).detach()


def polynomial(x: Tensor) -> Tensor:
    """The approximated sign of Bi-Real Net, as ReActNet's code writes it."""
    below, negative, small = ((x < bound).to(torch.float32) for bound in (-1, 0, 1))
    out = -1 * below + (x * x + 2 * x) * (1 - below)
    out = out * negative + (-x * x + 2 * x) * (1 - negative)
    out = out * small + 1 * (1 - small)
    return torch.sign(x).detach() - out.detach() + out


def masked(x: Tensor) -> Tensor:
    signs = torch.sign(x)
    return signs.masked_fill(signs == 0, 1.0)


def zero_written(x: Tensor) -> Tensor:
    signs = torch.sign(x)
    signs[signs == 0] = 1
    return signs


def both_written(x: Tensor) -> Tensor:
    signs = torch.zeros_like(x)
    signs[x >= 0] = 1
    signs[x < 0] = torch.full_like(x, -1.0)[x < 0]
    return signs


def written_over(x: Tensor) -> Tensor:
    signs = x.clone()
    signs[x < 0] = torch.tensor(-1.0)
    signs[signs >= 0] = 1
    return signs


# Of one for each of the six channels.
THRESHOLDS = torch.linspace(-0.7, 0.8, 6)[None, :, None, None]


def temperature(x: Tensor) -> Tensor:
    return torch.sign(F.hardtanh(F.hardtanh(x) / 0.05))


def rounded(x: Tensor) -> Tensor:
    return 2 * torch.round(torch.clamp((x + 1) / 2, 0, 1)) - 1


ABOVE_HALF = float(np.nextafter(np.float32(0.5), np.float32(1)))


@dataclass(frozen=True)
class Form:
    """An activation, and what must be found: its levels, its threshold and what that becomes."""

    function: Callable[[Tensor], Tensor]
    low: float = -1.0
    high: float = 1.0
    threshold: float = 0.0
    at_threshold: float = 0.0


ACTIVATIONS = {
    "sign": Form(sign),
    "RSign": Form(rsign),
    "sign - clip + clip": Form(ste),
    "clip + (sign - clip)": Form(ste_swapped),
    "x + (sign - x)": Form(ste_unclipped, at_threshold=1),
    "polynomial": Form(polynomial),
    "masked fill": Form(masked, at_threshold=1),
    "zero written": Form(zero_written, at_threshold=1),
    "both written": Form(both_written, at_threshold=1),
    "written over": Form(written_over, at_threshold=1),
    "above a threshold per channel": Form(
        lambda x: torch.where(x > THRESHOLDS, 1.0, -1.0), at_threshold=-1
    ),
    "below an expanded threshold": Form(
        lambda x: (THRESHOLDS.expand_as(x) <= x).float() * 2 - 1, at_threshold=1
    ),
    "where of numbers": Form(lambda x: torch.where(x >= 0, 1.0, -1.0), at_threshold=1),
    "where of tensors": Form(
        lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)), at_threshold=1
    ),
    "comparison, times 2, minus 1": Form(lambda x: (x >= 0).float() * 2 - 1, at_threshold=1),
    "strict comparison": Form(lambda x: 2 * (x > 0).to(x.dtype) - 1, at_threshold=-1),
    "temperature": Form(temperature),
    "sign of a shifted sign": Form(lambda x: torch.sign(torch.sign(x) + 0.01), at_threshold=1),
    "sign of tanh": Form(lambda x: torch.sign(torch.tanh(x))),
    "rounding": Form(rounded, threshold=ABOVE_HALF, at_threshold=1),
    "scaled": Form(lambda x: 0.3 * torch.sign(x), -0.3, 0.3),
    "scaled straight-through": Form(lambda x: 0.3 * torch.sign(x) - x.tanh() + x.tanh(), -0.3, 0.3),
    "falling": Form(lambda x: torch.where(x < 0, 1.0, -1.0), 1, -1, at_threshold=-1),
    "0 or 1": Form(lambda x: (x > 0).float(), 0, 1),
    "0 or 1 with 0 above": Form(lambda x: (x >= 0).float(), 0, 1, at_threshold=1),
    "DoReFa's one bit": Form(lambda x: torch.round(x.clamp(0, 1)), 0, 1, ABOVE_HALF, 1),
    "sign behind a ReLU": Form(lambda x: torch.sign(F.relu(x)), 0, 1),
    "sign behind ReLU6": Form(lambda x: torch.sign(F.relu6(x)), 0, 1),
    "sigmoid above a half": Form(
        lambda x: (torch.sigmoid(x) > 0.5).float(), 0, 1, ABOVE_HALF, 1
    ),
    "any threshold": Form(
        lambda x: torch.where(x >= 0.7, 0.5, -0.5), -0.5, 0.5, float(np.float32(0.7)), 0.5
    ),
}  # fmt: skip


def mean(w: Tensor) -> Tensor:
    return w.abs().mean((1, 2, 3), keepdim=True)


def bireal(w: Tensor) -> Tensor:
    scale = w.abs().mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True).detach()
    clipped = w.clamp(-1, 1)
    return (scale * torch.sign(w)).detach() - clipped.detach() + clipped


def centred(w: Tensor) -> Tensor:
    rows = w - w.mean((1, 2, 3), keepdim=True)
    return torch.sign(rows / rows.std((1, 2, 3), keepdim=True))


def with_zeros(w: Tensor) -> Tensor:
    kept = torch.ones_like(w)
    kept[0, 1, 2, 0] = kept[3, 0, 0, 0] = kept[3, 5, 2, 2] = 0
    return torch.sign(w * kept)


# Name: (weight, its magnitudes [O]).
WEIGHTS = {
    "sign": (torch.sign, lambda w: torch.ones(5)),
    "sign - clip + clip": (
        lambda w: torch.sign(w) - w.clamp(-1, 1) + w.clamp(-1, 1), lambda w: torch.ones(5)),
    "mean magnitude times sign": (lambda w: mean(w) * torch.sign(w), mean),
    "three means, straight-through": (bireal, mean),
    "one mean for the tensor": (
        lambda w: torch.sign(w / w.abs().mean()) * w.abs().mean(),
        lambda w: w.abs().mean().expand(5)),
    "L1 norm": (
        lambda w: w.norm(1, (1, 2, 3), keepdim=True) / 54 * torch.sign(w), mean),
    "centred": (centred, lambda w: torch.ones(5)),
    "where": (lambda w: torch.where(w >= 0, 1.0, -1.0), lambda w: torch.ones(5)),
    "comparison, times 2, minus 1": (lambda w: (w > 0).float() * 2 - 1, lambda w: torch.ones(5)),
    "zeros": (with_zeros, lambda w: torch.ones(5)),
}  # fmt: skip


class Layers(nn.Module):
    """Many layers of one input beside each other: to export is slow, once does for all."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.layers], 1)


@dataclass(frozen=True)
class Exported:
    """What an exporter made of many layers.

    Attributes:
        layers: one per form, in the order of the graph.
        nodes: their convolutions.
        found: the binary layer that is found in each convolution.
        expected: what PyTorch computes, [form, ...].
        computed: what the file computes.
        canonical: what its canonical form computes.
    """

    layers: list[nn.Module]
    nodes: list[ir.Node]
    found: dict[ir.Node, BinaryConv]
    expected: list[np.ndarray]
    computed: list[np.ndarray]
    canonical: list[np.ndarray]


def export_all(layers: list[nn.Module], exporter: str, folder: Path, run: Callable) -> Exported:
    network = Layers(layers).eval()
    x = torch.randn(1, 6, 7, 8)
    model = to_onnx(network, x, exporter, folder / "model.onnx")
    nodes = [node for node in model.graph if node.op_type == "Conv"]
    found = {conv.node: conv for conv in binary_convs(model)}
    with torch.no_grad():
        expected = network(x).numpy()
    computed = run(model, x.numpy())
    canonical_binarization(model)
    assert len(nodes) == len(layers)
    return Exported(
        layers,
        nodes,
        found,
        *(
            np.split(numbers, len(layers), axis=1)
            for numbers in (expected, computed, run(model, x.numpy()))
        ),
    )


def check_numbers(exported: Exported, index: int) -> None:
    expected = exported.expected[index]
    np.testing.assert_allclose(exported.computed[index], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(exported.canonical[index], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=EXPORTERS)
def activations(request, run_graph, tmp_path_factory) -> Exported:
    torch.manual_seed(0)
    layers = [Layer(form.function, torch.sign) for form in ACTIVATIONS.values()]
    return export_all(layers, request.param, tmp_path_factory.mktemp("activations"), run_graph)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_form_of_activation_is_recognised(name, activations) -> None:
    form, index = ACTIVATIONS[name], list(ACTIVATIONS).index(name)
    conv = activations.found[activations.nodes[index]]
    found = conv.binarization
    assert (found.low, found.high) == (
        pytest.approx(form.low, rel=1e-6),
        pytest.approx(form.high, rel=1e-6),
    )
    assert (found.threshold, found.at_threshold) == (form.threshold, form.at_threshold)
    check_numbers(activations, index)


# Name: with or without a bias, which keeps an exporter from folding batch norm in one way.
WEIGHT_LAYERS = [(name, bias) for name in WEIGHTS for bias in (False, True)]


@pytest.fixture(scope="module", params=EXPORTERS)
def weights(request, run_graph, tmp_path_factory) -> Exported:
    torch.manual_seed(1)
    layers = [Layer(ste, WEIGHTS[name][0], bias) for name, bias in WEIGHT_LAYERS]
    return export_all(layers, request.param, tmp_path_factory.mktemp("weights"), run_graph)


@pytest.mark.parametrize(("name", "bias"), WEIGHT_LAYERS)
def test_every_form_of_weight_is_recognised(name, bias, weights) -> None:
    index = WEIGHT_LAYERS.index((name, bias))
    layer, conv = weights.layers[index], weights.found[weights.nodes[index]]
    function, magnitude = WEIGHTS[name]
    with torch.no_grad():
        expected = np.sign(function(layer.latent).numpy())
        scale = magnitude(layer.latent).reshape(5).numpy()
    np.testing.assert_array_equal(conv.weight, expected)
    np.testing.assert_allclose(conv.magnitude, scale, rtol=1e-5)
    assert conv.facts.zero_weights == (expected == 0).sum()
    check_numbers(weights, index)


class Folded(nn.Module):
    """A layer of fixed ±1 weights with batch norm behind, which exporters fold into them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv.weight.data.sign_()
        self.norm.running_mean.normal_()
        self.norm.weight.data.normal_()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(torch.sign(x)))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_batch_norm_folded_into_a_weight_is_one_magnitude_per_channel(
    exporter, run_graph, tmp_path
) -> None:
    torch.manual_seed(2)
    network, x = Folded().eval(), torch.randn(1, 6, 7, 8)
    model = to_onnx(network, x, exporter, tmp_path / "model.onnx")
    (conv,) = binary_convs(model)
    if exporter != "dynamo":
        assert [node.op_type for node in model.graph] == ["Sign", "Conv"]
        assert conv.facts.scale is Granularity.CHANNEL
    canonical_binarization(model)
    expected = network(x).detach().numpy()
    np.testing.assert_allclose(run_graph(model, x.numpy()), expected, rtol=1e-4, atol=1e-4)


class Other(nn.Module):
    """Layers of other shapes than a plain convolution of a map."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        sizes = {"linear": (5, 6 * 7 * 8), "row": (5, 6, 3), "grouped": (6, 3, 3, 3)}
        self.latent = nn.Parameter(torch.randn(sizes.get(form, (5, 6, 3, 3))))

    def forward(self, x: Tensor) -> Tensor:
        weight = mean_of_rows(self.latent) * torch.sign(self.latent)
        signs = torch.where(x >= 0, 1.0, -1.0)
        if self.form == "linear":
            return F.linear(signs.flatten(1), weight)
        if self.form == "row":
            return F.conv1d(signs.flatten(2), weight, padding=1, stride=2)
        if self.form == "padded with +1":
            return F.conv2d(F.pad(signs, (1, 1, 1, 1), value=1.0), weight)
        if self.form == "padded with -1":
            return F.conv2d(F.pad(signs, (1, 1, 1, 1), value=-1.0), weight)
        if self.form == "factor per image":
            factor = x.abs().mean((1, 2, 3), keepdim=True)
            return F.conv2d(factor * signs, weight, padding=1)
        if self.form == "grouped":
            return F.conv2d(signs, weight, padding=1, groups=2)
        return F.conv2d(signs, weight, padding=2, dilation=2)


def mean_of_rows(w: Tensor) -> Tensor:
    return w.abs().mean(tuple(range(1, w.ndim)), keepdim=True)


OTHERS = [
    "linear", "row", "padded with +1", "padded with -1", "factor per image", "grouped", "dilated",
]  # fmt: skip


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("form", OTHERS)
def test_other_layers_are_recognised(form, exporter, run_graph, tmp_path) -> None:
    torch.manual_seed(3)
    network, x = Other(form).eval(), torch.randn(1, 6, 7, 8)
    model = to_onnx(network, x, exporter, tmp_path / "model.onnx")
    (conv,) = binary_convs(model)
    assert conv.facts.kind == ("linear" if form == "linear" else "conv")
    assert conv.facts.pad_value == {"padded with +1": 1, "padded with -1": -1}.get(form, 0)
    expected = network(x).detach().numpy()
    canonical_binarization(model)
    np.testing.assert_allclose(run_graph(model, x.numpy()), expected, rtol=1e-4, atol=1e-4)


LOOK_ALIKES = {
    "float": lambda x: x,
    "ReLU": F.relu,
    "clip": lambda x: x.clamp(-1, 1),
    "three levels": lambda x: torch.sign(x - 0.5) / 2 + torch.sign(x + 0.5) / 2,
    "two bits": lambda x: torch.round(x.clamp(0, 1) * 3) / 3,
    "two steps": lambda x: torch.where(x > 0.7, 1.0, torch.where(x < -0.7, 1.0, -1.0)),
    "sum of two signs": lambda x: torch.sign(x) + torch.sign(x.roll(1, 2)),
    "always true": lambda x: torch.where(F.relu(x) >= 0, 1.0, -1.0),
}  # fmt: skip


@pytest.fixture(scope="module", params=EXPORTERS)
def look_alikes(request, run_graph, tmp_path_factory) -> Exported:
    torch.manual_seed(4)
    layers = [Layer(function, torch.sign) for function in LOOK_ALIKES.values()]
    return export_all(layers, request.param, tmp_path_factory.mktemp("alike"), run_graph)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_what_only_looks_binary_is_not_recognised(name, look_alikes) -> None:
    assert look_alikes.nodes[list(LOOK_ALIKES).index(name)] not in look_alikes.found


# What multiplies the signs of a map from place to place cannot be taken out of the layer.
PRODUCTS = {
    "signs of two tensors": lambda x: torch.sign(x) * torch.sign(x.roll(1, 2)),
    "a factor per pixel": lambda x: torch.sign(x) * x.abs().mean(1, keepdim=True),
    "a constant per channel": lambda x: torch.sign(x) * torch.arange(1.0, 7).reshape(1, 6, 1, 1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_more_than_one_number_per_image_on_signs_is_told_as_such_a_factor(name, tmp_path) -> None:
    torch.manual_seed(6)
    network = Layer(PRODUCTS[name], torch.sign).eval()
    x = torch.randn(1, 6, 7, 8)
    model = to_onnx(network, x, "TorchScript at opset 13", tmp_path / "model.onnx")
    for conv in binary_convs(model):
        assert not conv.is_factor_movable


FLOAT_WEIGHTS = {
    "float": lambda w: w,
    "two bits": lambda w: torch.round(w * 2) / 2,
    "mostly zeros": lambda w: torch.sign(w) * (w.abs() > 0.5),
    "a magnitude per input channel": lambda w: torch.sign(w) * w.abs().mean((0, 2, 3), True),
    "a magnitude per position": lambda w: torch.sign(w) * w.abs().mean(1, True),
}


@pytest.fixture(scope="module")
def float_weights(run_graph, tmp_path_factory) -> Exported:
    torch.manual_seed(5)
    layers = [Layer(sign, function) for function in FLOAT_WEIGHTS.values()]
    folder = tmp_path_factory.mktemp("float")
    return export_all(layers, "TorchScript at opset 17", folder, run_graph)


@pytest.mark.parametrize("name", FLOAT_WEIGHTS)
def test_a_weight_that_only_looks_binary_is_not_recognised(name, float_weights) -> None:
    assert float_weights.nodes[list(FLOAT_WEIGHTS).index(name)] not in float_weights.found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["activations", "weights"])
def test_every_form_runs_on_larq_compute_engine_without_a_flip(what, tmp_path) -> None:
    import bibench_deploy

    torch.manual_seed(7)
    if what == "activations":
        layers = [Layer(form.function, torch.sign) for form in ACTIVATIONS.values()]
    else:
        layers = [Layer(ste, WEIGHTS[name][0], bias) for name, bias in WEIGHT_LAYERS]
    network, x = Layers(layers).eval(), torch.zeros(1, 6, 7, 8)
    # It fails where a layer is not in one bit, or a sign is another one than PyTorch's.
    artifact = bibench_deploy.export_model(network, x, target="lce", out=tmp_path / "out")
    assert len(binary_convs(load_graph(artifact.path("onnx")))) == len(layers)
