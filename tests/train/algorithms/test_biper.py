from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_train.algorithms.biper import ALGORITHM
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import NotBinaryError
from bibench_train.harden import HardBinaryLayer, harden
from bibench_train.layers import BinaryConv2d, BinaryLinear
from bibench_train.training import train
from bibench_train.training.checkpoint import load_run


def make(epoch: int) -> tuple[BinaryConv2d, Tensor]:
    """A layer in 64 bits in an epoch of a run of 200, and an input."""
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 4, 6, 3, stride=2, padding=1, groups=2).double()
    layer.binarizer.start_epoch(epoch, 200)
    return layer, torch.randn(3, 4, 7, 6, dtype=torch.float64, requires_grad=True)


def published(layer: BinaryConv2d, x: Tensor, is_binary: bool) -> Tensor:
    """The formula in plain operations; each sign takes the gradient of what it stands for."""
    wave = torch.sin(20 * layer.weight)
    weight = wave
    if is_binary:
        weight = torch.where(wave >= 0, 1.0, -1.0).double() + wave - wave.detach()
    unit = x / torch.sqrt(x.var((1, 2, 3), keepdim=True) + 1e-5)
    inner = torch.where(unit < 0, unit * unit + 2 * unit, 2 * unit - unit * unit)
    soft = torch.where(unit.abs() < 1, inner, unit.detach().clamp(-1, 1))
    signs = torch.where(x >= 0, 1.0, -1.0).double() + soft - soft.detach()
    assert layer.bias is not None
    output = F.conv2d(signs, weight, None, stride=2, padding=1, groups=2)
    return output * layer.binarizer.alpha.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)


@pytest.mark.parametrize(("epoch", "is_binary"), [(0, False), (99, False), (100, True)])
def test_output_and_gradients_are_those_of_plain_autograd(epoch: int, is_binary: bool) -> None:
    layer, x = make(epoch)
    ours, theirs = layer(x), published(layer, x, is_binary)
    torch.testing.assert_close(ours, theirs)
    trained = (x, layer.weight, layer.binarizer.alpha)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, trained, upstream),
        torch.autograd.grad(theirs, trained, upstream),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.parametrize(("epochs", "stages"), [(1, [1]), (2, [0, 1]), (5, [0, 0, 0, 1, 1])])
def test_the_second_stage_is_the_later_half_and_always_the_last_epoch(
    epochs: int, stages: list[int]
) -> None:
    layer = BinaryLinear(ALGORITHM, 4, 2)
    found = []
    for epoch in range(epochs):
        layer.binarizer.start_epoch(epoch, epochs)
        found.append(layer.state_dict()["binarizer.stage"].item())
    assert found == stages
    assert ALGORITHM.stages == 2


def test_a_run_of_one_epoch_can_be_hardened(tiny: ImagesInMemory, tmp_path: Path) -> None:
    recipe = replace(tiny.binary_recipe, epochs=1)
    run = train(algorithm="biper", dataset=tiny, out=tmp_path / "run", recipe=recipe)
    model, _ = load_run(run.run_dir)
    assert sum(isinstance(m, HardBinaryLayer) for m in harden(model).modules()) == 18


def test_a_run_moves_the_stage_of_every_layer(tiny: ImagesInMemory, tmp_path: Path) -> None:
    recipe = replace(tiny.binary_recipe, epochs=2)
    run = train(algorithm="biper", dataset=tiny, out=tmp_path / "run", recipe=recipe)
    model, _ = load_run(run.run_dir)
    found = [value.item() for name, value in model.state_dict().items() if name.endswith(".stage")]
    assert found == [1] * 18


@pytest.mark.parametrize(("epoch", "tau"), [(0, 0.037), (199, 0.0468)])
def test_the_penalty_is_the_formula(epoch: int, tau: float) -> None:
    layer, _ = make(epoch)
    ours = layer.binarizer.penalty(layer.weight)
    theirs = tau * (0.5 + 0.5 * torch.cos(2 * 20 * layer.weight)).mean()
    assert ours is not None
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(ours, layer.weight)
    (expected,) = torch.autograd.grad(theirs, layer.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12)


def test_the_penalty_draws_weights_to_plus_or_minus_one_and_not_to_zero() -> None:
    # Published code adds mean(sin²), which descends to 0: the sign would then be a coin toss.
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 16, 16, 3)
    weight = layer.weight
    before = torch.sin(20 * weight.detach()).abs().mean().item()
    for _ in range(400):
        penalty = layer.binarizer.penalty(weight)
        assert penalty is not None
        (gradient,) = torch.autograd.grad(penalty, weight)
        weight.data -= 0.05 * weight.numel() * gradient
    assert before < 0.7
    assert torch.sin(20 * weight.detach()).abs().mean().item() > 0.99


def test_the_first_stage_is_refused_with_layer_reason_and_way_out() -> None:
    model = nn.Sequential(nn.Flatten(), BinaryLinear(ALGORITHM, 3, 2))
    with pytest.raises(NotBinaryError) as raised:
        harden(model)
    message = str(raised.value)
    assert message.startswith("1: BiPer's weights are a sine wave in the first half of a run")
    assert message.endswith("finish the run with bibench train --resume")
    assert "\n" not in message


def test_the_first_stage_is_refused_even_where_every_sine_happens_to_be_one() -> None:
    layer = BinaryLinear(ALGORITHM, 2, 1)
    layer.weight.data.fill_(torch.pi / 40)
    assert layer.binarizer.binarize_weight(layer.weight).tolist() == [[1.0, 1.0]]
    with pytest.raises(NotBinaryError):
        harden(layer)


def test_signs_of_the_wave_and_the_scale_remain() -> None:
    layer, _ = make(199)
    hard = layer.binarizer.harden(layer.weight)
    wave = torch.sin(20 * layer.weight.detach())
    assert (wave * layer.weight.detach() < 0).any()  # more than the sign of the weight
    assert torch.equal(hard.weight, torch.where(wave >= 0, 1.0, -1.0).double())
    assert hard.scale is not None
    assert torch.equal(hard.scale, layer.binarizer.alpha.detach())
