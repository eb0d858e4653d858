import torch

from bibench_train.algorithms.bnn import ALGORITHM
from bibench_train.layers import BinaryConv2d, BinaryLinear


def test_output_is_the_plain_sum_of_signs() -> None:
    layer = BinaryConv2d(ALGORITHM, 3, 5, 3, padding=1, bias=False)
    output = layer(torch.randn(2, 3, 6, 6))
    assert torch.equal(output, output.round())
    assert output.abs().max() <= 3 * 9


def test_gradients_follow_the_formula() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 1, bias=False)
    layer.weight.data = torch.tensor([[0.5, -2.0, -1.0]])
    x = torch.tensor([[3.0, -0.5, 1.0]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    # g at sign(A) is sign(W), passed where |A| <= 1; and the other way round.
    assert x.grad.tolist() == [[0.0, -1.0, -1.0]]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_nothing_but_signs_remains() -> None:
    hard = BinaryLinear(ALGORITHM, 3, 1).binarizer.harden(torch.randn(1, 3))
    assert hard.scale is None
    assert hard.shift is None
