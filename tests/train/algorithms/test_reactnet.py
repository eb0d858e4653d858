import pytest
import torch

from bibench_train.algorithms.reactnet import ALGORITHM
from bibench_train.layers import BinaryConv2d, BinaryLinear


def test_the_shift_starts_at_zero_one_per_input_channel() -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 8, 3)
    assert layer.state_dict()["binarizer.shift"].tolist() == [0.0] * 4


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


def test_the_gradient_of_the_shift_is_the_input_gradient_summed_over_its_channel() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 3, 5, 3, padding=1)
    layer.binarizer.shift.data.uniform_(-0.5, 0.5)
    x = torch.randn(4, 3, 6, 6, requires_grad=True)
    layer(x).square().sum().backward()
    shift_gradient = layer.binarizer.shift.grad
    assert x.grad is not None
    torch.testing.assert_close(shift_gradient, x.grad.sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_the_surrogate_gradient_is_taken_at_the_shifted_input() -> None:
    layer = BinaryLinear(ALGORITHM, 1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    layer.binarizer.shift.data.fill_(0.25)
    x = torch.tensor([[0.5]], requires_grad=True)
    layer(x).backward()
    assert x.grad is not None
    assert x.grad.item() == 2 - 2 * 0.75


def test_scale_and_shift_remain() -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 8, 3)
    layer.binarizer.shift.data.fill_(0.5)
    hard = layer.binarizer.harden(layer.weight)
    assert hard.scale is not None
    assert hard.scale.shape == (8,)
    assert hard.shift is not None
    assert hard.shift.tolist() == [0.5] * 4
