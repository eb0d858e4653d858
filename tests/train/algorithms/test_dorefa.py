import torch

from bibench_train.algorithms.dorefa import ALGORITHM
from bibench_train.layers import BinaryConv2d, BinaryLinear


def test_gradients_follow_the_formula() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 1, bias=False)
    layer.weight.data = torch.tensor([[0.5, -2.0, -0.5]])  # α = 1
    x = torch.tensor([[3.0, -0.5, 0.25]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, -1.0, -1.0]]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_gradients_are_those_of_the_clamped_formula() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 3, 4, 3, padding=1, bias=False).double()
    x = (1.5 * torch.randn(2, 3, 5, 5, dtype=torch.float64)).requires_grad_()
    layer.weight.data.mul_(6)
    upstream = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    ours = torch.autograd.grad(layer(x), (x, layer.weight), upstream)

    def binarized(values: torch.Tensor) -> torch.Tensor:
        line = values.clamp(-1, 1)
        return torch.where(values >= 0, 1.0, -1.0).double() - line.detach() + line

    alpha = layer.weight.detach().abs().mean((1, 2, 3)).view(1, -1, 1, 1)
    output = alpha * torch.conv2d(binarized(x), binarized(layer.weight), None, 1, 1)
    theirs = torch.autograd.grad(output, (x, layer.weight), upstream)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_there_is_a_scale_for_each_output_channel_over_all_that_feeds_it() -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 6, 3, groups=2)
    hard = layer.binarizer.harden(layer.weight)
    assert hard.scale is not None
    torch.testing.assert_close(hard.scale, layer.weight.detach().abs().mean((1, 2, 3)))
    assert len(hard.scale.unique()) == 6


def test_a_sum_of_zero_stays_exactly_zero() -> None:
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
