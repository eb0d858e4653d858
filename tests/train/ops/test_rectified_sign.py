import math

import pytest
import torch
from torch import Tensor

from bibench_train.ops.rectified_sign import sign_rectified

SHAPES = [(6, 3, 3, 3), (4, 5, 3), (6, 8)]


def published(weight: Tensor, tau: float) -> Tensor:
    """The clamped, standardised weights, as public code has them."""
    dims = tuple(range(1, weight.dim()))
    centred = weight - weight.mean(dims, keepdim=True)
    deviation = torch.sqrt(centred.var(dims, keepdim=True) + 1e-5)
    standard = centred / (deviation / 2 / math.sqrt(2))
    bound = -standard.abs().mean().item() * math.log(2 - 2 * tau)
    return standard.clamp(-bound, bound)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tau", [0.85, 0.92, 0.99])
def test_gradient_is_that_of_plain_autograd(shape: tuple[int, ...], tau: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64).add_(0.2).requires_grad_()
    upstream = torch.randn_like(weight)
    signs = sign_rectified(weight, torch.tensor(tau, dtype=torch.float64))
    (ours,) = torch.autograd.grad(signs, weight, upstream)
    (theirs,) = torch.autograd.grad(published(weight, tau), weight, upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradient_agrees_with_finite_differences_where_nothing_is_clamped() -> None:
    # Q is detached, so finite differences, which move it, hold only inside of it.
    torch.manual_seed(0)
    weight = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    tau = torch.tensor(0.9999, dtype=torch.float64)

    def surrogate(weight: Tensor) -> Tensor:
        signs = sign_rectified(weight, tau)
        return published(weight, 0.9999).detach() + signs - signs.detach()

    assert torch.autograd.gradcheck(surrogate, (weight,))


def test_a_larger_tau_lets_the_gradient_reach_weights_further_out() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1, 1000)
    weight[0, 0] = 2.0  # two standard deviations
    upstream = torch.zeros_like(weight)
    upstream[0, 0] = 1.0
    is_reached = []
    for tau in (0.85, 0.99):
        latent = weight.clone().requires_grad_()
        signs = sign_rectified(latent, torch.tensor(tau))
        is_reached.append(bool(torch.autograd.grad(signs, latent, upstream)[0].any()))
    assert is_reached == [False, True]


def test_signs_are_taken_around_the_mean_of_each_filter() -> None:
    weight = torch.tensor([[1.0, 2.0, 6.0], [-1.0, 0.0, 1.0]])
    signs = sign_rectified(weight, torch.tensor(0.9))
    assert signs.tolist() == [[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]


def test_a_filter_of_one_weight_becomes_plus_one_with_gradient_zero() -> None:
    weight = torch.tensor([[[[0.5]]], [[[-0.5]]]], requires_grad=True)
    signs = sign_rectified(weight, torch.tensor(0.85))
    assert signs.flatten().tolist() == [1.0, 1.0]
    (gradient,) = torch.autograd.grad(signs.sum(), weight)
    assert gradient.flatten().tolist() == [0.0, 0.0]


def test_equal_weights_have_a_finite_gradient() -> None:
    weight = torch.full((2, 4), 0.25, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        sign_rectified(weight, torch.tensor(0.85)), weight, torch.randn(2, 4)
    )
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_result_and_gradient_keep_dtype_and_memory_format(dtype: torch.dtype) -> None:
    weight = torch.randn(6, 3, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    weight.requires_grad_()
    signs = sign_rectified(weight, torch.tensor(0.85))
    (gradient,) = torch.autograd.grad(signs, weight, torch.randn_like(signs))
    for tensor in (signs, gradient):
        assert (tensor.dtype, tensor.stride()) == (dtype, weight.stride())


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        sign_rectified(torch.tensor([[1]]), torch.tensor(0.85))
