import itertools

import pytest
import torch
from torch import Tensor

from bibench_train.algorithms._algorithm import LayerShape
from bibench_train.algorithms.xnor import ALGORITHM, InputMagnitude
from bibench_train.harden import harden
from bibench_train.layers import BinaryConv1d, BinaryConv2d, BinaryLinear


def magnitude_by_hand(x: Tensor, shape: LayerShape) -> Tensor:
    """K of one map [C, H, W] as the paper says it, one position and one tap at a time."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = (
        shape.kernel_size,
        shape.stride,
        shape.padding,
        shape.dilation,
    )
    _, height, width = x.shape
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    result = torch.zeros(shape.out_channels, rows, columns, dtype=x.dtype)
    per_group, outputs = x.shape[0] // shape.groups, shape.out_channels // shape.groups
    for channel, row, column in itertools.product(
        range(shape.out_channels), range(rows), range(columns)
    ):
        group = channel // outputs
        own = x[group * per_group : (group + 1) * per_group].abs()
        for i, j in itertools.product(range(kh), range(kw)):
            y, z = row * sh - ph + i * dh, column * sw - pw + j * dw
            if 0 <= y < height and 0 <= z < width:
                result[channel, row, column] += own[:, y, z].mean() / (kh * kw)
    return result


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape(3, 2, (3, 3), (1, 1), (1, 1), (1, 1)),
        LayerShape(3, 2, (3, 3), (2, 2), (1, 1), (1, 1)),
        LayerShape(3, 2, (3, 3), (1, 1), (2, 2), (2, 2)),
        LayerShape(3, 2, (2, 3), (2, 1), (0, 2), (1, 2)),
        LayerShape(3, 2, (1, 1), (2, 2), (0, 0), (1, 1)),
        LayerShape(4, 6, (3, 3), (2, 1), (1, 2), (1, 1), groups=2),
        LayerShape(4, 4, (3, 3), (1, 1), (1, 1), (1, 1), groups=4),
    ],
    ids=["padding", "stride", "dilation", "not square", "1x1", "groups", "depthwise"],
)
def test_the_magnitude_is_the_paper_s_sum(shape: LayerShape) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, shape.in_channels, 6, 7, dtype=torch.float64)
    found = InputMagnitude(shape).double()(x)
    expected = torch.stack([magnitude_by_hand(image, shape) for image in x])
    torch.testing.assert_close(found.expand_as(expected), expected, rtol=1e-6, atol=1e-6)


def test_padding_counts_as_zeros_in_the_magnitude() -> None:
    shape = LayerShape(2, 1, (3, 3), (1, 1), (1, 1), (1, 1))
    found = InputMagnitude(shape)(torch.full((1, 2, 3, 3), -9.0))
    torch.testing.assert_close(
        found[0, 0], torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]])
    )


def test_a_one_dimensional_convolution_has_its_magnitude_along_its_length() -> None:
    layer = BinaryConv1d(ALGORITHM, 2, 1, 3, stride=2, padding=1, bias=False)
    x = torch.tensor([[[1.0, -2.0, 3.0], [-3.0, 0.0, 5.0]]])  # mean |A|: 2, 1, 4
    found = layer.binarizer.magnitude(x)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 5 / 3]]]))


def test_a_linear_layer_has_one_magnitude_for_each_row() -> None:
    layer = BinaryLinear(ALGORITHM, 2, 3, bias=False)
    x = torch.tensor([[[1.0, -2.0], [0.0, 0.0]], [[4.0, 0.0], [-1.0, -1.0]]])
    assert layer.binarizer.magnitude(x).tolist() == [[[1.5], [0.0]], [[2.0], [1.0]]]


def test_there_is_no_one_factor_for_a_whole_image() -> None:
    layer = BinaryConv2d(ALGORITHM, 1, 1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    x = torch.tensor([[[[0.5, 2.0]]]])
    assert layer(x).tolist() == x.tolist()


def test_the_row_mean_stays_in_a_linear_layer_s_weights() -> None:
    layer = BinaryLinear(ALGORITHM, 2, 1, bias=False)
    layer.weight.data = torch.tensor([[3.0, 1.0]])  # without its mean it would be +1, -1
    assert layer(torch.tensor([[1.0, 1.0]])).item() == 4.0
    hard = layer.binarizer.harden(layer.weight)
    assert hard.weight.tolist() == [[1.0, 1.0]]
    assert hard.scale is not None
    assert hard.scale.tolist() == [2.0]


def plain(layer: BinaryConv2d, x: Tensor) -> Tensor:
    """The same formula from autograd's own operations."""

    def binarized(values: Tensor) -> Tensor:
        line = values.clamp(-1, 1)
        return torch.where(values >= 0, 1.0, -1.0).to(values) - line.detach() + line

    weight = layer.weight
    alpha = weight.abs().mean((1, 2, 3)).detach().view(1, -1, 1, 1)
    dots = layer.operator(binarized(x), binarized(weight))
    return alpha * layer.binarizer.magnitude(x).detach() * dots


def test_gradients_are_those_of_plain_autograd_with_both_factors_detached() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 4, 6, 3, 2, 1, groups=2, bias=False).double()
    layer.weight.data.mul_(6)
    x = (1.5 * torch.randn(2, 4, 7, 7, dtype=torch.float64)).requires_grad_()
    upstream = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    ours = torch.autograd.grad(layer(x), (x, layer.weight), upstream)
    theirs = torch.autograd.grad(plain(layer, x), (x, layer.weight), upstream)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_rescaling_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(ALGORITHM, 2, 3, 3, padding=1).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    dots = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda output: layer.binarizer.rescale(output, layer.weight, x), dots
    )


def test_a_sum_of_zero_stays_exactly_zero() -> None:
    layer = BinaryConv2d(ALGORITHM, 16, 8, 3, bias=False)
    x = torch.randn(4, 16, 9, 9)
    dots = layer.operator(
        layer.binarizer.binarize_input(x), layer.binarizer.binarize_weight(layer.weight)
    )
    assert (dots == 0).any()
    assert torch.equal(layer(x) == 0, dots == 0)


def test_a_constant_of_the_geometry_is_not_in_the_checkpoint() -> None:
    assert set(BinaryConv2d(ALGORITHM, 2, 3, 3).state_dict()) == {"weight", "bias"}


def test_what_is_hardened_does_not_follow_its_source() -> None:
    layer = BinaryConv2d(ALGORITHM, 2, 3, 3)
    hard = harden(layer)
    x = torch.randn(1, 2, 5, 5)
    before = hard(x)
    layer.binarizer.magnitude.box.mul_(2)
    assert torch.equal(hard(x), before)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_hardened_layer_is_written_from_plain_operations(groups: int) -> None:
    layer = BinaryConv2d(ALGORITHM, 4, 6, 3, 2, 1, groups=groups, bias=False)
    program = torch.onnx.export(
        harden(layer),
        (torch.randn(1, 4, 9, 9),),
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    operators = {node.op_type for node in program.model.graph}
    assert {"Abs", "ReduceMean", "Conv", "Mul"} <= operators
    assert not {"Loop", "If", "Scan", "SequenceAt"} & operators
