import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_train.algorithms.fda import ALGORITHM, NoiseAdaptation
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import NotBinaryError
from bibench_train.harden import HardBinaryLayer, harden
from bibench_train.layers import BinaryConv1d, BinaryConv2d, BinaryLayer, BinaryLinear
from bibench_train.training import train
from bibench_train.training.checkpoint import load_run

STEP = {"stride": 2, "padding": 1, "groups": 2}


def make(kind: str, epoch: int) -> tuple[BinaryLayer, Tensor]:
    """A layer in 64 bits in an epoch of a run of 200, and an input."""
    torch.manual_seed(0)
    made: dict[str, tuple[BinaryLayer, Tensor]] = {
        "conv2d": (BinaryConv2d(ALGORITHM, 8, 6, 3, **STEP), torch.randn(3, 8, 7, 6)),
        "conv1d": (BinaryConv1d(ALGORITHM, 8, 6, 3, **STEP), torch.randn(3, 8, 7)),
        "linear": (BinaryLinear(ALGORITHM, 8, 6), torch.randn(2, 5, 8)),
    }
    layer, x = made[kind]
    layer.weight.data.mul_(4)  # some beyond ±1
    layer.binarizer.start_epoch(epoch, 200)
    return layer.double(), x.double().requires_grad_()


def sign_with_series(x: Tensor, terms: int) -> Tensor:
    """The sign, with the gradient of the cut Fourier series within ±1."""
    inner = x.clamp(-1, 1)
    series = sum(torch.sin((2 * i + 1) * 0.1 * inner) / (2 * i + 1) for i in range(terms + 1))
    series = 4 / math.pi * series
    return torch.where(x >= 0, 1.0, -1.0).double() + series - series.detach()


def noise(rows: Tensor, module: NoiseAdaptation) -> Tensor:
    """η of numbers that lie in the last dimension."""
    return module.fc2(torch.relu(module.fc1(rows))) + 0.1 * torch.sin(rows)


def published(kind: str, layer: BinaryLayer, x: Tensor, a: float, terms: int) -> Tensor:
    """The formula in plain operations."""
    binarizer = layer.binarizer
    weight = sign_with_series(layer.weight, terms)
    signs = sign_with_series(x, terms)
    scale = layer.weight.detach().abs().flatten(1).mean(1)
    if kind == "linear":
        weight = weight + a * noise(layer.weight, binarizer.weight_noise)
        signs = signs + a * noise(x, binarizer.input_noise)
        return signs @ weight.T * scale + layer.bias
    filters = layer.weight.movedim(1, -1)
    noises = noise(filters.flatten(1), binarizer.weight_noise).view(filters.shape).movedim(-1, 1)
    weight = weight + a * noises
    signs = signs + a * noise(x.movedim(1, -1), binarizer.input_noise).movedim(-1, 1)
    convolve = F.conv2d if kind == "conv2d" else F.conv1d
    channel = (1, -1, *[1] * (x.dim() - 2))
    return convolve(signs, weight, None, **STEP) * scale.view(channel) + layer.bias.view(channel)


@pytest.mark.parametrize("kind", ["conv2d", "conv1d", "linear"])
@pytest.mark.parametrize(("epoch", "terms"), [(0, 9), (150, 15), (199, 17)])
def test_output_and_gradients_are_those_of_plain_autograd(
    kind: str, epoch: int, terms: int
) -> None:
    layer, x = make(kind, epoch)
    a = 0.05 * (1 + math.cos(math.pi * (epoch + 1) / 200))
    ours, theirs = layer(x), published(kind, layer, x, a, terms)
    # a is stored in 32 bits.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    trained = (x, *layer.parameters())
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, trained, upstream),
        torch.autograd.grad(theirs, trained, upstream),
        rtol=1e-6,
        atol=1e-6,
    )


def test_the_noise_s_own_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    module = NoiseAdaptation(8, -1).double()
    x = torch.randn(5, 8, dtype=torch.float64)
    amplitude, terms = torch.tensor(0.05, dtype=torch.float64), torch.tensor(9)

    def of_parameters(fc1: Tensor, fc2: Tensor) -> Tensor:
        parameters = {"fc1.weight": fc1, "fc2.weight": fc2}
        return torch.func.functional_call(module, parameters, (x, amplitude, terms))

    assert torch.autograd.gradcheck(of_parameters, (module.fc1.weight, module.fc2.weight))


def test_both_noises_exist_before_the_first_forward_and_are_trained() -> None:
    # Where one is created in the first forward pass, an optimizer built before never sees it.
    layer = BinaryConv2d(ALGORITHM, 8, 6, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = {name: value.clone() for name, value in layer.named_parameters()}
    layer(torch.randn(2, 8, 5, 5)).square().sum().backward()
    optimizer.step()
    for noise_of in ("weight_noise", "input_noise"):
        for name in (f"binarizer.{noise_of}.fc1.weight", f"binarizer.{noise_of}.fc2.weight"):
            assert not torch.equal(before[name], layer.state_dict()[name]), name


@pytest.mark.parametrize(
    ("in_channels", "groups", "kernel_size", "of_weight", "of_input"),
    [
        (64, 1, 3, (576, 9), (64, 1)),
        (512, 1, 3, (4608, 72), (512, 8)),
        (63, 1, 1, (63, 15), (63, 15)),
        (8, 2, 3, (36, 9), (8, 2)),
        (3, 1, 1, (3, 1), (3, 1)),
    ],
)
def test_the_noises_have_the_widths_of_the_paper(
    in_channels: int,
    groups: int,
    kernel_size: int,
    of_weight: tuple[int, int],
    of_input: tuple[int, int],
) -> None:
    binarizer = BinaryConv2d(ALGORITHM, in_channels, 8, kernel_size, groups=groups).binarizer
    for module, (size, hidden) in (
        (binarizer.weight_noise, of_weight),
        (binarizer.input_noise, of_input),
    ):
        assert tuple(module.fc1.weight.shape) == (hidden, size)
        assert tuple(module.fc2.weight.shape) == (size, hidden)
        assert module.fc1.bias is None
        assert module.fc2.bias is None


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100, 128, 200, 600])
def test_the_amplitude_is_exactly_zero_in_the_last_epoch_and_in_no_other(epochs: int) -> None:
    binarizer = BinaryLinear(ALGORITHM, 4, 2).binarizer
    found = []
    for epoch in range(epochs):
        binarizer.start_epoch(epoch, epochs)
        found.append(binarizer.state_dict()["amplitude"].item())
    expected = [0.05 * (1 + math.cos(math.pi * (epoch + 1) / epochs)) for epoch in range(epochs)]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found[-1] == 0
    assert all(found[:-1])


def test_the_number_of_terms_grows_from_nine_by_nine_over_a_run() -> None:
    binarizer = BinaryLinear(ALGORITHM, 4, 2).binarizer
    found = []
    for epoch in range(200):
        binarizer.start_epoch(epoch, 200)
        found.append(binarizer.state_dict()["terms"].item())
    assert found == [9 + 9 * epoch // 200 for epoch in range(200)]
    assert (found[0], found[23], found[100], found[-1]) == (9, 10, 13, 17)


def test_a_run_moves_amplitude_and_terms_and_its_last_epoch_can_be_hardened(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    recipe = replace(tiny.binary_recipe, epochs=2)
    run = train(algorithm="fda", dataset=tiny, out=tmp_path / "run", recipe=recipe)
    model, _ = load_run(run.run_dir)
    state = model.state_dict()
    assert [v.item() for name, v in state.items() if name.endswith(".amplitude")] == [0.0] * 18
    assert [v.item() for name, v in state.items() if name.endswith(".terms")] == [13] * 18
    assert sum(isinstance(m, HardBinaryLayer) for m in harden(model).modules()) == 18


def test_noise_is_refused_with_layer_amplitude_and_way_out() -> None:
    model = nn.Sequential(nn.Flatten(), BinaryLinear(ALGORITHM, 3, 2))
    model[1].binarizer.start_epoch(99, 200)
    with pytest.raises(NotBinaryError) as raised:
        harden(model)
    message = str(raised.value)
    assert message.startswith("1: FDA-BNN still adds noise to weights and inputs, so that they are")
    assert "its amplitude is 0.05, and 0 in the last epoch" in message
    assert message.endswith("finish it with bibench train --resume")
    assert "\n" not in message


def test_in_the_last_epoch_the_parameters_of_the_noise_still_get_gradients() -> None:
    # Without one, data-parallel training would wait for it for ever, or refuse.
    layer, x = make("conv2d", 199)
    output = layer(x)
    output.square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("kind", ["conv2d", "conv1d", "linear"])
def test_in_the_last_epoch_training_too_binarizes_to_exactly_one(kind: str) -> None:
    layer, x = make(kind, 199)
    for values in (
        layer.binarizer.binarize_input(x),
        layer.binarizer.binarize_weight(layer.weight),
    ):
        assert set(values.unique().tolist()) == {-1.0, 1.0}


def test_evaluation_after_the_last_epoch_does_without_the_noise() -> None:
    layer, x = make("conv2d", 199)
    expected = layer.eval()(x)
    for module in (layer.binarizer.weight_noise, layer.binarizer.input_noise):
        module.fc1.weight.data.fill_(float("nan"))
    assert torch.equal(layer(x), expected)


def test_evaluation_before_the_last_epoch_has_the_noise_of_training() -> None:
    layer, x = make("conv2d", 0)
    assert torch.equal(layer.eval()(x), layer.train()(x))


def test_channels_last_memory_is_kept_without_a_copy() -> None:
    layer = BinaryConv2d(ALGORITHM, 8, 6, 3).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    signs = layer.binarizer.binarize_input(x)
    weight = layer.binarizer.binarize_weight(layer.weight)
    gradients = torch.autograd.grad((signs.sum(), weight.sum()), (x, layer.weight))
    for tensor in (signs, weight, *gradients):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_the_scale_multiplies_finished_sums_so_a_zero_sum_stays_exactly_zero() -> None:
    layer = BinaryConv2d(ALGORITHM, 64, 8, 3, bias=False)
    layer.binarizer.start_epoch(199, 200)
    x = torch.randn(4, 64, 9, 9)
    dots = layer.operator(
        layer.binarizer.binarize_input(x), layer.binarizer.binarize_weight(layer.weight)
    )
    assert (dots == 0).any()
    assert torch.equal(layer(x) == 0, dots == 0)
