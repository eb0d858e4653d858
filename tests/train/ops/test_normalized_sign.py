import pytest
import torch
from torch import Tensor

from bibench_train.ops.estimators import sign_polynomial
from bibench_train.ops.normalized_sign import sign_normalized_polynomial

SHAPES = [((3, 4, 5, 6), 3), ((3, 4, 7), 2), ((5, 8), 1), ((2, 3, 8), 1)]


def published(x: Tensor, sample_dims: int) -> Tensor:
    """F(x / √(var + 1e-5)), as public code has it: autograd does the rest."""
    dims = tuple(range(-sample_dims, 0))
    x = x / torch.sqrt(x.var(dims, keepdim=True) + 1e-5)
    inner = torch.where(x < 0, x * x + 2 * x, 2 * x - x * x)
    return torch.where(x < -1, -torch.ones_like(x), torch.where(x < 1, inner, torch.ones_like(x)))


@pytest.mark.parametrize(("shape", "sample_dims"), SHAPES)
@pytest.mark.parametrize("mean", [0.0, 0.3, -40.0])
def test_gradient_is_that_of_plain_autograd(
    shape: tuple[int, ...], sample_dims: int, mean: float
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape, dtype=torch.float64) + mean).requires_grad_()
    upstream = torch.randn_like(x)
    (ours,) = torch.autograd.grad(sign_normalized_polynomial(x, sample_dims), x, upstream)
    (theirs,) = torch.autograd.grad(published(x, sample_dims), x, upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def surrogate(x: Tensor) -> Tensor:
        # Its value is the surrogate's, its gradient is ours.
        signs = sign_normalized_polynomial(x, 3)
        return published(x, 3).detach() + signs - signs.detach()

    assert torch.autograd.gradcheck(surrogate, (x,))


def test_float32_is_exact_where_the_mean_is_far_from_zero() -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 8, 8, dtype=torch.float64) * 0.1 + 2).float().requires_grad_()
    wide = x.detach().double().requires_grad_()
    upstream = torch.randn_like(x)
    (ours,) = torch.autograd.grad(sign_normalized_polynomial(x / 20, 3), x, upstream)
    (theirs,) = torch.autograd.grad(published(wide / 20, 3), wide, upstream.double())
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_the_gradient_of_a_sample_does_not_depend_on_other_samples() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    (together,) = torch.autograd.grad(sign_normalized_polynomial(x, 1).sum(), x)
    (alone,) = torch.autograd.grad(sign_normalized_polynomial(x[:1], 1).sum(), x)
    torch.testing.assert_close(together[:1], alone[:1])


def test_the_gradient_knows_the_variance_not_only_its_value() -> None:
    # Were the variance a constant, the gradient would be that of the polynomial alone.
    x = torch.randn(1, 50, dtype=torch.float64, requires_grad=True)
    root = (x.detach().var(1, keepdim=True) + 1e-5).sqrt()
    (ours,) = torch.autograd.grad(sign_normalized_polynomial(x, 1).square().sum() / 2, x)
    (constant,) = torch.autograd.grad(sign_polynomial(x / root).square().sum() / 2, x)
    assert not torch.allclose(ours, constant, atol=1e-3)


def test_a_sample_of_one_element_has_a_finite_gradient() -> None:
    x = torch.tensor([[0.001], [0.5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(sign_normalized_polynomial(x, 1).sum(), x)
    # The variance is 0, so the value is divided by √1e-5, about 1/316.
    assert gradient[0].item() == pytest.approx((2 - 2 * 0.001 / 1e-5**0.5) / 1e-5**0.5, rel=1e-4)
    assert gradient[1].item() == 0


def test_signs_are_those_of_the_input_and_zero_becomes_plus_one() -> None:
    x = torch.tensor([[-0.0, 0.0, -1e-30, 5.0]])
    assert sign_normalized_polynomial(x, 1).tolist() == [[1.0, 1.0, -1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_result_and_gradient_keep_dtype_and_memory_format(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    y = sign_normalized_polynomial(x, 3)
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    for tensor in (y, gradient):
        assert (tensor.dtype, tensor.stride()) == (dtype, x.stride())


def test_bfloat16_is_near_to_float32() -> None:
    x = torch.randn(2, 4, 8, 8)
    upstream = torch.randn_like(x)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        narrow = x.bfloat16().to(dtype).requires_grad_()
        signs = sign_normalized_polynomial(narrow, 3)
        found.append(torch.autograd.grad(signs, narrow, upstream.bfloat16().to(dtype))[0].float())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.05 * found[1].abs().max().item())


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        sign_normalized_polynomial(torch.tensor([[1]]), 1)
