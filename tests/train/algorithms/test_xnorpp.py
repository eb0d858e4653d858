from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bibench_train import architectures
from bibench_train.algorithms.xnorpp import ALGORITHM
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import CheckpointError, NotBinaryError
from bibench_train.harden import harden
from bibench_train.layers import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLinear,
    binary_layers,
    set_output_sizes,
)
from bibench_train.training import train
from bibench_train.training.checkpoint import load_run
from bibench_train.training.run_info import RUN_FILE, read_run


def made() -> BinaryConv2d:
    """A convolution [N, 3, 5, 6] → [N, 4, 5, 6] whose factors all differ."""
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 3, 4, 3, padding=1, bias=False)
    set_output_sizes(layer, (3, 5, 6))
    for factor in layer.binarizer.parameters():
        factor.data.uniform_(0.5, 2)
    return layer


def test_there_is_a_factor_for_each_channel_row_and_column_and_all_are_one() -> None:
    layer = BinaryConv2d(ALGORITHM, 3, 4, 3, stride=2, padding=1)
    assert [name for name, _ in layer.binarizer.named_parameters()] == ["alpha"]
    set_output_sizes(layer, (3, 9, 14))
    factors = {name: p.tolist() for name, p in layer.binarizer.named_parameters()}
    assert factors == {"alpha": [1.0] * 4, "beta": [1.0] * 5, "gamma": [1.0] * 7}


def test_a_one_dimensional_convolution_has_channels_and_positions() -> None:
    layer = BinaryConv1d(ALGORITHM, 3, 4, 3)
    set_output_sizes(layer, (3, 9))
    shapes = {name: tuple(p.shape) for name, p in layer.binarizer.named_parameters()}
    assert shapes == {"alpha": (4,), "beta": (7,)}


def test_a_linear_layer_has_channels_only_and_needs_no_size() -> None:
    layer = BinaryLinear(ALGORITHM, 3, 4)
    assert [name for name, _ in layer.binarizer.named_parameters()] == ["alpha"]
    assert layer(torch.randn(2, 5, 3)).shape == (2, 5, 4)


def test_the_output_is_the_sum_of_signs_times_each_factor() -> None:
    layer, x = made(), torch.randn(2, 3, 5, 6)
    factors = layer.binarizer
    dots = layer.operator(factors.binarize_input(x), factors.binarize_weight(layer.weight))
    expected = torch.einsum("nchw,c,h,w->nchw", dots, factors.alpha, factors.beta, factors.gamma)
    torch.testing.assert_close(layer(x), expected)


def test_gradients_are_those_of_plain_autograd() -> None:
    layer = made().double()
    factors = layer.binarizer
    layer.weight.data.mul_(6)
    x = (1.5 * torch.randn(2, 3, 5, 6, dtype=torch.float64)).requires_grad_()
    upstream = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    trained = (x, layer.weight, factors.alpha, factors.beta, factors.gamma)
    ours = torch.autograd.grad(layer(x), trained, upstream)

    def binarized(values: Tensor) -> Tensor:
        line = values.clamp(-1, 1)
        return torch.where(values >= 0, 1.0, -1.0).double() - line.detach() + line

    dots = torch.conv2d(binarized(x), binarized(layer.weight), None, 1, 1)
    output = dots * factors.alpha.view(1, -1, 1, 1) * factors.beta.view(1, 1, -1, 1) * factors.gamma
    theirs = torch.autograd.grad(output, trained, upstream)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Rescaling(nn.Module):
    """The layer's `rescale` alone, as a function of the sums and of the factors."""

    def __init__(self, layer: BinaryConv2d) -> None:
        super().__init__()
        self.binarizer = layer.binarizer
        self.shape = layer.weight.shape

    def forward(self, sums: Tensor) -> Tensor:
        return self.binarizer.rescale(sums, torch.zeros(self.shape), sums)


def test_the_gradients_of_the_factors_agree_with_finite_differences() -> None:
    module = Rescaling(made().double())
    sums = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    names, values = zip(*module.named_parameters(), strict=True)

    def rescaled(sums: Tensor, *factors: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, factors, strict=True)), sums)

    assert torch.autograd.gradcheck(rescaled, (sums, *values))


def test_a_sum_of_zero_stays_exactly_zero() -> None:
    layer, x = made(), torch.randn(8, 3, 5, 6)
    layer.weight.data = torch.randn(4, 3, 3, 3)
    factors = layer.binarizer
    dots = layer.operator(factors.binarize_input(x), factors.binarize_weight(layer.weight))
    assert (dots == 0).any()
    assert torch.equal(layer(x) == 0, dots == 0)


def test_without_its_size_a_layer_says_how_to_give_it() -> None:
    layer = BinaryConv2d(ALGORITHM, 3, 4, 3)
    with pytest.raises(ValueError, match=r"size .* is not known; call .*\.set_output_sizes\("):
        layer(torch.randn(1, 3, 5, 5))
    with pytest.raises(NotBinaryError, match=r"0: XNOR.* is not known; call .*set_output_sizes\("):
        harden(nn.Sequential(layer))


def test_without_its_size_a_layer_still_runs_on_the_meta_device() -> None:
    layer = BinaryConv2d(ALGORITHM, 3, 4, 3).to("meta")
    assert layer(torch.zeros(1, 3, 5, 6, device="meta")).shape == (1, 4, 3, 4)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_input_of_another_size_is_refused_with_both_sizes(device: str) -> None:
    layer = made().to(device)
    with pytest.raises(ValueError, match=r"an output of 6×5, but this layer's .* made for 5×6;"):
        layer(torch.zeros(1, 3, 6, 5, device=device))


def test_the_size_is_given_once_and_what_was_learned_stays() -> None:
    layer = made()
    before = layer.binarizer.gamma
    set_output_sizes(layer, (3, 5, 6))
    assert layer.binarizer.gamma is before
    with pytest.raises(ValueError, match="an output of 7×6, but"):
        set_output_sizes(layer, (3, 7, 6))


def test_the_factors_are_created_where_the_layer_is() -> None:
    layer = BinaryConv2d(ALGORITHM, 3, 4, 3).double()
    set_output_sizes(layer, (3, 5, 6))
    assert {p.dtype for p in layer.parameters()} == {torch.float64}


def test_every_layer_of_a_network_has_the_size_of_its_own_output() -> None:
    model = architectures.build("resnet20", algorithm="xnorpp", image_size=(32, 24))
    sizes = [layer.binarizer.output_size for _, layer in binary_layers(model)]
    assert sizes == [(32, 24)] * 6 + [(16, 12)] * 6 + [(8, 6)] * 6


def test_a_product_of_the_output_s_size_remains() -> None:
    layer = made()
    hard = layer.binarizer.harden(layer.weight)
    assert hard.scale is not None
    assert hard.scale.shape == (4, 5, 6)
    factors = layer.binarizer
    expected = factors.alpha[2] * factors.beta[3] * factors.gamma[4]
    torch.testing.assert_close(hard.scale[2, 3, 4], expected.detach())


def test_a_state_of_another_size_is_refused() -> None:
    layer = made()
    other = BinaryConv2d(ALGORITHM, 3, 4, 3, padding=1, bias=False)
    set_output_sizes(other, (3, 6, 6))
    with pytest.raises(RuntimeError, match=r"size mismatch for binarizer\.beta"):
        other.load_state_dict(layer.state_dict())


def test_a_run_on_images_of_another_size_is_refused_in_one_line(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    recipe = replace(tiny.binary_recipe, epochs=1)
    run = train(algorithm="xnorpp", dataset=tiny, out=tmp_path / "run", recipe=recipe)
    model, info = load_run(run.run_dir)
    assert info.input_shape == (3, 8, 8)
    assert model(torch.zeros(1, 3, 8, 8)).isfinite().all()
    changed = replace(read_run(run.run_dir), input_shape=(3, 16, 8))
    (run.run_dir / RUN_FILE).write_text(changed.to_json())
    with pytest.raises(
        CheckpointError, match=r"binarizer\.beta is \[8\], not \[16\] and \d+ more"
    ) as raised:
        load_run(run.run_dir)
    assert "\n" not in str(raised.value)
