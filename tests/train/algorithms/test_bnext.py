from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bibench_train import datasets
from bibench_train.algorithms.bnext import ALGORITHM
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import NotBinaryError
from bibench_train.harden import HardBinaryLayer, harden
from bibench_train.layers import BinaryConv2d, BinaryLinear
from bibench_train.training import train
from bibench_train.training.checkpoint import load_run
from bibench_train.training.recipe import Recipe


def temperatures(epochs: int) -> list[float]:
    layer = BinaryLinear(ALGORITHM, 2, 1)
    found = []
    for epoch in range(epochs):
        layer.binarizer.start_epoch(epoch, epochs)
        found.append(layer.binarizer.temperature.item())
    return found


def test_the_temperature_falls_by_a_tenth_from_epoch_one() -> None:
    found = temperatures(200)
    assert found[0] == 1.0
    torch.testing.assert_close(torch.tensor(found), 0.9 ** torch.arange(200.0))
    # The first hard epoch is the public code's: 0.9^153 is the first below 1e-7.
    assert next(epoch for epoch, value in enumerate(found) if value < 1e-7) == 153


@pytest.mark.parametrize("epochs", [1, 2, 10, 100, 128, 154, 155, 512])
def test_a_finished_run_of_any_length_is_hard(epochs: int) -> None:
    found = temperatures(epochs)
    assert found[-1] < 1e-7
    assert torch.tensor(found[-1], dtype=torch.bfloat16) < 1e-7


@pytest.mark.parametrize("epochs", [10, 128])
def test_a_short_run_falls_faster_by_one_constant_factor_and_is_hard_only_at_its_end(
    epochs: int,
) -> None:
    found = torch.tensor(temperatures(epochs), dtype=torch.float64)
    assert found[0] == 1.0
    assert found[-2] > 1e-7
    ratios = found[1:] / found[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-5, atol=0)
    assert ratios[0] < 0.9


def test_the_recipe_s_own_length_ends_hard() -> None:
    assert temperatures(Recipe().epochs)[-1] < 1e-7
    assert temperatures(datasets.load("digits").binary_recipe.epochs)[-1] < 1e-7


def test_soft_weights_are_the_clamped_line_and_hard_ones_their_sign() -> None:
    layer = BinaryLinear(ALGORITHM, 4, 1).eval()
    layer.weight.data = torch.tensor([[-0.7, -0.1, 0.0, 0.4]])
    layer.binarizer.start_epoch(10, 200)
    expected = (layer.weight.detach() / 0.9**10).clamp(-1, 1)
    torch.testing.assert_close(layer.binarizer.binarize_weight(layer.weight), expected)
    assert expected.tolist()[0][0] == -1
    layer.binarizer.start_epoch(199, 200)
    assert layer.binarizer.binarize_weight(layer.weight).tolist() == [[-1.0, -1.0, 1.0, 1.0]]


def test_latent_weights_are_clamped_in_training_and_left_alone_in_evaluation() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 1)
    layer.weight.data = torch.tensor([[-2.0, 0.5, 1.75]])
    layer.eval()(torch.randn(1, 3))
    assert layer.weight.tolist() == [[-2.0, 0.5, 1.75]]
    layer.train()(torch.randn(1, 3))
    assert layer.weight.tolist() == [[-1.5, 0.5, 1.5]]


@pytest.mark.parametrize("epoch", [0, 100, 199])
def test_gradients_follow_the_formula(epoch: int) -> None:
    layer = BinaryLinear(ALGORITHM, 4, 1, bias=False)
    layer.binarizer.start_epoch(epoch, 200)
    layer.weight.data = torch.tensor([[1.25, -9.0, -1.5, 1.5]])  # all ±1 at any temperature
    layer.binarizer.shift.data = torch.tensor([0.25, 0.25, 0.0, 0.0])
    x = torch.tensor([[1.25, 1.5, -1.5, 1.75]], requires_grad=True)  # A + b: 1.5, 1.75, -1.5, 1.75
    (2 * layer(x)).sum().backward()
    assert x.grad is not None
    # g at sign(A + b) is 2 W_b, passed where |A + b| <= 1.5; at W_b it is 2 sign(A + b), always.
    assert x.grad.tolist() == [[2.0, 0.0, -2.0, 0.0]]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[2.0, 2.0, -2.0, 2.0]]
    assert layer.binarizer.shift.grad is not None
    assert layer.binarizer.shift.grad.tolist() == [2.0, 0.0, -2.0, 0.0]


def test_gradients_are_those_of_plain_autograd_while_the_weights_are_soft() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 4, 6, 3, 2, 1, groups=2, bias=False).double()
    layer.binarizer.start_epoch(12, 200)
    layer.binarizer.shift.data.uniform_(-0.5, 0.5)
    x = (1.5 * torch.randn(2, 4, 7, 7, dtype=torch.float64)).requires_grad_()
    upstream = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    trained = (x, layer.weight, layer.binarizer.shift)
    ours = torch.autograd.grad(layer(x), trained, upstream)
    shifted = x + layer.binarizer.shift.view(1, -1, 1, 1)
    line = shifted.clamp(-1.5, 1.5)
    signs = torch.where(shifted >= 0, 1.0, -1.0).double() - line.detach() + line
    soft = (layer.weight / layer.binarizer.temperature).clamp(-1, 1)
    weight = soft.detach() - layer.weight.detach() + layer.weight
    theirs = torch.autograd.grad(
        torch.conv2d(signs, weight, None, 2, 1, groups=2), trained, upstream
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_gradient_reaches_weights_far_from_zero() -> None:
    layer = BinaryLinear(ALGORITHM, 1, 1, bias=False)
    layer.weight.data.fill_(1.4)
    layer(torch.ones(1, 1)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.item() == 1.0


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_the_shift_moves_the_threshold_in_the_forward_pass(kind: str) -> None:
    layer = (
        BinaryConv2d(ALGORITHM, 1, 1, 1, bias=False)
        if kind == "conv2d"
        else BinaryLinear(ALGORITHM, 1, 1, bias=False)
    )
    x = torch.full((1, 1, 1, 1) if kind == "conv2d" else (1, 1), 0.25)
    before = layer(x).item()
    layer.binarizer.shift.data.fill_(-0.5)
    assert layer(x).item() == -before


def test_soft_weights_are_refused_with_layer_temperature_and_way_out() -> None:
    model = nn.Sequential(nn.Flatten(), BinaryLinear(ALGORITHM, 3, 2))
    model[1].binarizer.start_epoch(10, 200)
    with pytest.raises(NotBinaryError) as raised:
        harden(model)
    message = str(raised.value)
    assert message.startswith("1: BNext's weights are soft: their temperature is 0.35, and ")
    assert message.endswith("finish it with bibench train --resume")
    assert "\n" not in message


def test_soft_weights_are_refused_even_where_all_of_them_happen_to_be_plus_or_minus_one() -> None:
    layer = BinaryLinear(ALGORITHM, 2, 1)
    layer.weight.data = torch.tensor([[1.5, -1.5]])
    with pytest.raises(NotBinaryError, match="their temperature is 1,"):
        harden(layer)


def test_weights_and_shift_remain_and_no_scale() -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 8, 3)
    layer.binarizer.start_epoch(199, 200)
    layer.binarizer.shift.data.fill_(0.5)
    hard = layer.binarizer.harden(layer.weight)
    assert hard.scale is None
    assert hard.shift is not None
    assert hard.shift.tolist() == [0.5] * 4


def test_a_run_moves_the_temperature_and_its_last_epoch_can_be_hardened(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    recipe = replace(tiny.binary_recipe, epochs=2)
    run = train(algorithm="bnext", dataset=tiny, out=tmp_path / "run", recipe=recipe)
    model, _ = load_run(run.run_dir)
    assert model.state_dict()["stages.0.0.conv1.binarizer.temperature"] < 1e-7
    layers = [m for m in harden(model).modules() if isinstance(m, HardBinaryLayer)]
    assert len(layers) == 18
