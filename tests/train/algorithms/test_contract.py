"""What every algorithm promises; a new file in algorithms/ is tested here by itself."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bibench_train import algorithms
from bibench_train.algorithms._algorithm import Algorithm, Binarizer
from bibench_train.harden import HardBinaryLayer, harden
from bibench_train.layers import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    set_output_sizes,
)

KINDS = ["conv2d", "conv1d", "linear"]


@pytest.fixture(params=algorithms.names())
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    found = algorithms.load(request.param)
    assert found is not None
    return found


EPOCHS = 200


def make(algorithm: Algorithm, kind: str) -> tuple[BinaryLayer, Tensor]:
    """A layer in its last epoch, every option away from its default, and an input with zeros."""
    torch.manual_seed(0)
    layer: BinaryLayer
    if kind == "conv2d":
        layer = BinaryConv2d(algorithm, 4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
        x = torch.randn(3, 4, 9, 8)
    elif kind == "conv1d":
        layer = BinaryConv1d(algorithm, 4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
        x = torch.randn(3, 4, 9)
    else:
        layer = BinaryLinear(algorithm, 4, 6)
        x = torch.randn(3, 4)
    set_output_sizes(layer, tuple(x.shape[1:]))
    layer.binarizer.start_epoch(EPOCHS - 1, EPOCHS)
    with torch.no_grad():
        layer.weight.flatten()[::5] = 0.0
        for parameter in layer.binarizer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x.flatten()[::7] = 0.0
    return layer, x


def by_hand(kind: str, x: Tensor, weight: Tensor) -> Tensor:
    if kind == "conv2d":
        return F.conv2d(x, weight, None, stride=2, padding=2, dilation=2, groups=2)
    if kind == "conv1d":
        return F.conv1d(x, weight, None, stride=2, padding=2, dilation=2, groups=2)
    return x @ weight.T


def test_an_algorithm_says_what_it_is(algorithm: Algorithm) -> None:
    assert algorithm.title
    assert algorithm.source.startswith("https://")
    assert algorithm.gradient
    assert algorithm.remains


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_weights_become_exactly_plus_or_minus_one(
    algorithm: Algorithm, kind: str
) -> None:
    layer, x = make(algorithm, kind)
    layer.eval()
    for values in (
        layer.binarizer.binarize_input(x),
        layer.binarizer.binarize_weight(layer.weight),
    ):
        assert set(values.unique().tolist()) == {-1.0, 1.0}


def test_the_pure_functions_send_zero_to_plus_one(algorithm: Algorithm) -> None:
    zeros = torch.tensor([0.0, -0.0])
    assert algorithm.binarize_input(zeros).tolist() == [1.0, 1.0]
    assert algorithm.binarize_weight(zeros).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_stride_padding_dilation_groups_and_bias_are_honoured(
    algorithm: Algorithm, kind: str
) -> None:
    layer, x = make(algorithm, kind)
    layer.eval()
    binarizer, bias = layer.binarizer, layer.bias
    assert bias is not None
    dots = by_hand(kind, binarizer.binarize_input(x), binarizer.binarize_weight(layer.weight))
    shape = (1, 6, *[1] * (dots.dim() - 2))
    expected = binarizer.rescale(dots, layer.weight, x) + bias.view(shape)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bias_adds_nothing(algorithm: Algorithm, kind: str) -> None:
    layer, x = make(algorithm, kind)
    assert layer.bias is not None
    with_bias = layer.eval()(x)
    bias = layer.bias
    layer.bias = None
    expected = layer(x) + bias.detach().view(1, 6, *[1] * (x.dim() - 2))
    torch.testing.assert_close(with_bias, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_reach_everything_that_is_trained(
    algorithm: Algorithm, kind: str
) -> None:
    layer, x = make(algorithm, kind)
    x.requires_grad_()
    for epoch in (EPOCHS - 1, 0):
        layer.zero_grad()
        x.grad = None
        layer.binarizer.start_epoch(epoch, EPOCHS)
        layer.train()(x).square().sum().backward()
        for name, tensor in [("x", x), *layer.named_parameters()]:
            assert tensor.grad is not None, name
            assert tensor.grad.isfinite().all(), name
            # What has faded out by the last epoch is trained before.
            assert tensor.grad.any() or epoch > 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(algorithm: Algorithm, kind: str, dtype: torch.dtype) -> None:
    layer, x = make(algorithm, kind)
    assert layer.to(dtype)(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_autocast_trains_parameters_of_32_bits(
    algorithm: Algorithm, kind: str, input_dtype: torch.dtype
) -> None:
    layer, x = make(algorithm, kind)
    layer.binarizer.start_epoch(0, EPOCHS)
    x = x.to(input_dtype).requires_grad_()
    expected = torch.autograd.grad(layer.train()(x.float()).square().sum(), [*layer.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    output.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == input_dtype
    for (name, parameter), plain in zip(layer.named_parameters(), expected, strict=True):
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        # bfloat16 has 8 bits, and rounding adds up through the layer.
        error = (parameter.grad - plain).abs().max()
        assert error <= 0.05 * plain.abs().max() + 0.05, name


@pytest.mark.filterwarnings(
    # torch.compile itself makes such an object to trace an estimator with.
    "ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning"
)
def test_compiles_as_one_graph_that_follows_the_schedule(algorithm: Algorithm) -> None:
    layer, x = make(algorithm, "conv2d")
    # As models are trained. Traced code has its own rules for such memory.
    layer.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    trained = (x.requires_grad_(), *layer.train().parameters())
    torch.compiler.reset()
    # Not inductor, which needs a C++ compiler: this traces what it would compile.
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for epoch in (0, EPOCHS - 1):
        layer.binarizer.start_epoch(epoch, EPOCHS)
        expected, found = layer(x), compiled(x)
        torch.testing.assert_close(found, expected)
        upstream = torch.randn_like(expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, trained, upstream),
            torch.autograd.grad(expected, trained, upstream),
        )


@pytest.mark.parametrize("kind", KINDS)
def test_hardened_layer_equals_the_eval_forward(algorithm: Algorithm, kind: str) -> None:
    layer, x = make(algorithm, kind)
    expected = layer.eval()(x)
    hard = harden(layer)
    assert isinstance(hard, HardBinaryLayer)
    assert set(hard.weight.unique().tolist()) == {-1.0, 1.0}
    assert list(hard.parameters()) == []
    # The same operations in the same order: not even rounding may differ.
    assert torch.equal(hard(x), expected)


def test_a_layer_survives_copying_and_its_state_dict(algorithm: Algorithm) -> None:
    layer, x = make(algorithm, "conv2d")
    other, _ = make(algorithm, "conv2d")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(layer.state_dict())
    expected = layer.eval()(x)
    assert torch.equal(other.eval()(x), expected)
    assert torch.equal(copy.deepcopy(layer)(x), expected)


def test_weights_have_the_names_of_the_float_layer(algorithm: Algorithm) -> None:
    layer, _ = make(algorithm, "conv2d")
    others = {name for name in layer.state_dict() if not name.startswith("binarizer.")}
    assert others == set(torch.nn.Conv2d(4, 6, 3).state_dict())


def test_what_is_learned_exists_before_the_first_forward(algorithm: Algorithm) -> None:
    layer, x = make(algorithm, "conv2d")
    before = {name for name, _ in layer.named_parameters()}
    layer(x)
    assert {name for name, _ in layer.named_parameters()} == before


def test_the_epoch_hook_moves_what_the_algorithm_says_it_moves(algorithm: Algorithm) -> None:
    layer, x = make(algorithm, "conv2d")
    assert isinstance(layer.binarizer, Binarizer)
    seen = []
    for epoch in (0, EPOCHS // 2, EPOCHS - 1):
        layer.binarizer.start_epoch(epoch, EPOCHS)
        assert layer.train()(x).isfinite().all()
        seen.append([buffer.tolist() for _, buffer in layer.binarizer.named_buffers()])
    if algorithm.schedule:
        assert seen[0] != seen[-1]
    else:
        assert seen[0] == seen[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_algorithm_says_of_deployment_is_what_is_left_of_its_layer(
    algorithm: Algorithm, kind: str
) -> None:
    layer, _ = make(algorithm, kind)
    hard = layer.eval().binarizer.harden(layer.weight)
    assert (hard.shift is not None) == algorithm.shifts_input
    assert (hard.input_scale is not None) == algorithm.rescales_by_activation
    if kind == "linear" and algorithm.scale_granularity == "spatial":
        assert hard.scale is not None
        assert hard.scale.shape == (6,)
        return
    dimensions = {"none": 0, "channel": 1, "spatial": 3 if kind == "conv2d" else 2}
    found = 0 if hard.scale is None else hard.scale.dim()
    assert found == dimensions[algorithm.scale_granularity]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_no_samples_passes_forward_and_backward(algorithm: Algorithm, kind: str) -> None:
    # What one of several processes gets where the last batch has fewer images than processes.
    layer, x = make(algorithm, kind)
    for epoch in (0, EPOCHS - 1):
        layer.binarizer.start_epoch(epoch, EPOCHS)
        empty = x[:0].detach().requires_grad_()
        output = layer.train()(empty)
        assert output.shape == (0, *layer(x).shape[1:])
        output.sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
