import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bibench_train.algorithms.recu import ALGORITHM
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.layers import BinaryConv1d, BinaryConv2d, BinaryLayer, BinaryLinear
from bibench_train.training import train
from bibench_train.training.checkpoint import load_run

STEP = {"stride": 2, "padding": 1, "groups": 2}


def make(kind: str) -> tuple[BinaryLayer, Tensor]:
    """A layer in 64 bits that is in training, and an input."""
    torch.manual_seed(0)
    made: dict[str, tuple[BinaryLayer, Tensor]] = {
        "conv2d": (BinaryConv2d(ALGORITHM, 4, 6, 3, **STEP), torch.randn(3, 4, 7, 6)),
        "conv1d": (BinaryConv1d(ALGORITHM, 4, 6, 3, **STEP), torch.randn(3, 4, 7)),
        "linear": (BinaryLinear(ALGORITHM, 8, 6), torch.randn(2, 5, 8)),
    }
    layer, x = made[kind]
    return layer.double(), x.double().requires_grad_()


def polynomial(x: Tensor) -> Tensor:
    inner = torch.where(x < 0, x * x + 2 * x, 2 * x - x * x)
    return torch.where(x < -1, -torch.ones_like(x), torch.where(x < 1, inner, torch.ones_like(x)))


def published(kind: str, layer: BinaryLayer, x: Tensor, tau: float) -> Tensor:
    """The formula in plain operations; each sign takes the gradient of what it stands for."""
    of_filter = tuple(range(1, layer.weight.dim()))
    centred = layer.weight - layer.weight.mean(of_filter, keepdim=True)
    deviation = torch.sqrt(centred.var(of_filter, keepdim=True) + 1e-5)
    standard = centred / (deviation / 2 / math.sqrt(2))
    bound = -standard.abs().mean().item() * math.log(2 - 2 * tau)
    clamped = standard.clamp(-bound, bound)
    weight = torch.where(clamped >= 0, 1.0, -1.0).double() + clamped - clamped.detach()
    of_sample = (-1,) if kind == "linear" else tuple(range(1, x.dim()))
    soft = polynomial(x / torch.sqrt(x.var(of_sample, keepdim=True) + 1e-5))
    signs = torch.where(x >= 0, 1.0, -1.0).double() + soft - soft.detach()
    if kind == "linear":
        return signs @ weight.T * layer.binarizer.alpha + layer.bias
    convolve = F.conv2d if kind == "conv2d" else F.conv1d
    channel = (1, -1, *[1] * (x.dim() - 2))
    scale, bias = layer.binarizer.alpha.view(channel), layer.bias.view(channel)
    return convolve(signs, weight, None, **STEP) * scale + bias


@pytest.mark.parametrize("kind", ["conv2d", "conv1d", "linear"])
@pytest.mark.parametrize("epoch", [0, 199])
def test_output_and_gradients_are_those_of_plain_autograd(kind: str, epoch: int) -> None:
    layer, x = make(kind)
    layer.binarizer.start_epoch(epoch, 200)
    ours = layer(x)
    theirs = published(kind, layer, x, layer.binarizer.tau.item())
    torch.testing.assert_close(ours, theirs)
    trained = (x, layer.weight, layer.binarizer.alpha, layer.bias)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, trained, upstream),
        torch.autograd.grad(theirs, trained, upstream),
        rtol=0,
        atol=1e-11,
    )


def test_evaluation_has_the_same_signs_and_the_plain_polynomial_s_gradient() -> None:
    layer, x = make("conv2d")
    in_training = layer.binarizer.binarize_input(x)
    signs = layer.eval().binarizer.binarize_input(x)
    assert torch.equal(signs, in_training)
    (gradient,) = torch.autograd.grad(signs.sum(), x)
    torch.testing.assert_close(gradient, (2 - 2 * x.detach().abs()).clamp(min=0))


def test_tau_grows_from_085_towards_099_by_the_formula() -> None:
    layer = BinaryLinear(ALGORITHM, 4, 2)
    found = []
    for epoch in range(200):
        layer.binarizer.start_epoch(epoch, 200)
        found.append(layer.state_dict()["binarizer.tau"].item())
    a = (0.99 - 0.85) / (math.e - 1)
    expected = [a * math.exp(epoch / 200) + 0.85 - a for epoch in range(200)]
    assert found == pytest.approx(expected, rel=1e-6)
    assert found[0] == pytest.approx(0.85)
    assert 0.98 < found[-1] < 0.99


def test_a_run_moves_tau_in_every_layer(tiny: ImagesInMemory, tmp_path: Path) -> None:
    recipe = replace(tiny.binary_recipe, epochs=2)
    run = train(algorithm="recu", dataset=tiny, out=tmp_path / "run", recipe=recipe)
    model, _ = load_run(run.run_dir)
    found = [value.item() for name, value in model.state_dict().items() if name.endswith(".tau")]
    expected = 0.85 + 0.14 * (math.exp(0.5) - 1) / (math.e - 1)
    assert found == pytest.approx([expected] * 18)


def test_the_signs_of_weights_around_their_filter_s_mean_remain() -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 6, 3)
    layer.weight.data += torch.arange(6.0).view(6, 1, 1, 1)
    hard = layer.binarizer.harden(layer.weight)
    means = layer.weight.detach().mean((1, 2, 3), keepdim=True)
    assert torch.equal(hard.weight, torch.where(layer.weight >= means, 1.0, -1.0))
    assert hard.scale is not None
    assert torch.equal(hard.scale, layer.binarizer.alpha.detach())
    assert not hard.scale.requires_grad


def test_the_scale_starts_as_uniform_numbers_and_is_learned() -> None:
    torch.manual_seed(0)
    layer = BinaryLinear(ALGORITHM, 4, 1000)
    alpha = layer.binarizer.alpha
    assert isinstance(alpha, torch.nn.Parameter)
    assert 0 <= alpha.min() < 0.01
    assert 0.99 < alpha.max() < 1
    assert alpha.mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_scale_multiplies_finished_sums_so_a_zero_sum_stays_exactly_zero() -> None:
    layer = BinaryConv2d(ALGORITHM, 64, 8, 3, bias=False)
    x = torch.randn(4, 64, 9, 9)
    dots = layer.operator(
        layer.binarizer.binarize_input(x), layer.binarizer.binarize_weight(layer.weight)
    )
    assert (dots == 0).any()
    assert torch.equal(layer(x) == 0, dots == 0)


def test_a_depthwise_pointwise_layer_trains_without_a_number_that_is_none() -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 4, 1, groups=4)
    layer(torch.randn(2, 4, 3, 3)).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
