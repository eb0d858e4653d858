import pytest
import torch
from torch import nn

from bibench_train import algorithms
from bibench_train.layers import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    binary_layers,
    make_conv2d,
    make_linear,
)

BIREAL = algorithms.load("bireal")
assert BIREAL is not None


def test_no_algorithm_gives_the_plain_float_layer() -> None:
    assert type(make_conv2d(None, 3, 4, 3)) is nn.Conv2d
    assert type(make_linear(None, 3, 4)) is nn.Linear


def test_an_algorithm_gives_the_binary_layer_with_the_same_geometry() -> None:
    binary = make_conv2d(BIREAL, 4, 8, 3, 2, 1, 2, 4, bias=False)
    plain = make_conv2d(None, 4, 8, 3, 2, 1, 2, 4, bias=False)
    assert isinstance(binary, BinaryConv2d)
    x = torch.randn(1, 4, 9, 9)
    assert binary(x).shape == plain(x).shape
    assert binary.bias is None
    assert isinstance(make_linear(BIREAL, 3, 4), BinaryLinear)


def test_weights_of_a_float_layer_load_into_its_binary_twin() -> None:
    binary, plain = make_conv2d(BIREAL, 4, 8, 3), make_conv2d(None, 4, 8, 3)
    binary.load_state_dict(plain.state_dict())
    assert torch.equal(binary.weight, plain.weight)


def test_a_linear_layer_takes_any_leading_dimensions() -> None:
    assert make_linear(algorithms.load("reactnet"), 4, 2)(torch.randn(3, 5, 4)).shape == (3, 5, 2)


def test_padding_adds_nothing_to_the_sums() -> None:
    layer = make_conv2d(algorithms.load("bnn"), 1, 1, 3, padding=1, bias=False)
    layer.weight.data.fill_(1.0)
    assert layer(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_padding_in_words_is_refused() -> None:
    with pytest.raises(TypeError, match="give it as numbers"):
        BinaryConv1d(BIREAL, 1, 1, 3, padding="same")


def test_binary_layers_are_named_in_order() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), make_conv2d(BIREAL, 4, 4, 3), make_linear(BIREAL, 4, 2)
    )
    assert [name for name, _ in binary_layers(model)] == ["1", "2"]
