import torch

from bibench_train.algorithms.bireal import ALGORITHM
from bibench_train.layers import BinaryConv2d, BinaryLinear


def test_gradients_follow_the_formula() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 1, bias=False)
    layer.weight.data = torch.tensor([[0.5, -2.0, -0.5]])  # α = 1
    x = torch.tensor([[3.0, -0.5, 0.25]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, -1.0, -1.5]]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_the_scale_multiplies_finished_sums_so_a_zero_sum_stays_exactly_zero() -> None:
    # conv(±1, ±α) would leave about ±1e-9 here, and the next sign would depend on the engine.
    layer = BinaryConv2d(ALGORITHM, 64, 8, 3, bias=False)
    x = torch.randn(4, 64, 9, 9)
    dots = layer.operator(
        layer.binarizer.binarize_input(x), layer.binarizer.binarize_weight(layer.weight)
    )
    assert (dots == 0).any()
    assert torch.equal(layer(x) == 0, dots == 0)


def test_the_linear_layer_keeps_its_bias() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 2)
    layer.bias.data = torch.tensor([10.0, -10.0])
    with_bias = layer(torch.randn(1, 3))
    assert with_bias[0, 0] > 5
    assert with_bias[0, 1] < -5


def test_a_scale_per_output_channel_remains() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 2)
    hard = layer.binarizer.harden(layer.weight)
    assert hard.scale is not None
    torch.testing.assert_close(hard.scale, layer.weight.detach().abs().mean(1))
    assert hard.shift is None
