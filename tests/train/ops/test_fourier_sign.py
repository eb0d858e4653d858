import math

import pytest
import torch
from torch import Tensor

from bibench_train.ops.fourier_sign import fourier_slope, sign_fourier


def published(x: Tensor, terms: int) -> Tensor:
    """The sum of cosines, in 64 bits."""
    wide = x.double()
    total = sum(torch.cos((2 * i + 1) * 0.1 * wide) for i in range(terms + 1))
    return 4 * 0.1 / math.pi * total * (wide.abs() <= 1)


def values(dtype: torch.dtype) -> Tensor:
    """A grid, and numbers of both signs down to the smallest that the type has."""
    tiny = 10.0 ** -torch.arange(0, 330, 0.5, dtype=torch.float64)
    grid = torch.linspace(-1.5, 1.5, 6001, dtype=torch.float64)
    return torch.cat([grid, tiny, -tiny, torch.zeros(1, dtype=torch.float64)]).to(dtype)


@pytest.mark.parametrize("terms", [0, 9, 13, 18])
@pytest.mark.parametrize(
    ("dtype", "error"),
    # The last digit of the type, and a few of those of a float32 argument.
    [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)],
)
def test_the_closed_form_equals_the_sum_of_cosines(
    terms: int, dtype: torch.dtype, error: float
) -> None:
    x = values(dtype)
    found, expected = fourier_slope(x, torch.tensor(terms)), published(x, terms)
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() <= error * expected.max()


def test_at_zero_it_is_the_number_of_terms() -> None:
    at_zero = fourier_slope(torch.tensor([0.0, -0.0], dtype=torch.float64), torch.tensor(9))
    assert at_zero.tolist() == pytest.approx([4 * 0.1 / math.pi * 10] * 2, rel=1e-15)


@pytest.mark.parametrize("x", [1.0000001, -1.0000001, 1e30, float("inf")])
def test_beyond_one_it_is_zero(x: float) -> None:
    assert fourier_slope(torch.tensor([x]), torch.tensor(9)).item() == 0


@pytest.mark.parametrize("x", [1.0, -1.0])
def test_at_exactly_one_it_is_not(x: float) -> None:
    assert fourier_slope(torch.tensor([x]), torch.tensor(9)).item() > 0.5


def test_it_is_the_derivative_of_the_cut_fourier_series_of_the_square_wave() -> None:
    x = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)

    def series(x: Tensor) -> Tensor:
        odd = [2 * i + 1 for i in range(10)]
        return 4 / math.pi * torch.stack([torch.sin(k * 0.1 * x) / k for k in odd]).sum(0)

    numeric = (series(x + 1e-6) - series(x - 1e-6)) / 2e-6
    torch.testing.assert_close(fourier_slope(x, torch.tensor(9)), numeric, rtol=0, atol=1e-8)


def test_the_estimator_multiplies_the_upstream_gradient() -> None:
    x = torch.linspace(-2, 2, 33, requires_grad=True)
    upstream = torch.randn(33)
    signs = sign_fourier(x, torch.tensor(9))
    assert torch.equal(signs.detach(), torch.where(x >= 0, 1.0, -1.0))
    (gradient,) = torch.autograd.grad(signs, x, upstream)
    torch.testing.assert_close(gradient.double(), published(x, 9).detach() * upstream.double(),
                               rtol=0, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_result_and_gradient_keep_dtype_and_memory_format(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    y = sign_fourier(x, torch.tensor(9))
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    for tensor in (y, gradient):
        assert (tensor.dtype, tensor.stride()) == (dtype, x.stride())


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        sign_fourier(torch.tensor([1]), torch.tensor(9))
