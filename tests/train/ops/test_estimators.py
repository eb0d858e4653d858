from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bibench_train.ops.estimators import sign_clipped_ste, sign_polynomial

ESTIMATORS = [sign_clipped_ste, sign_polynomial]


def surrogate_polynomial(x: Tensor) -> Tensor:
    """F of the reference, whose derivative the polynomial estimator claims to give."""
    inner = torch.where(x < 0, x * x + 2 * x, 2 * x - x * x)
    return torch.where(x < -1, -torch.ones_like(x), torch.where(x < 1, inner, torch.ones_like(x)))


SURROGATES = {sign_clipped_ste: torch.nn.functional.hardtanh, sign_polynomial: surrogate_polynomial}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient_is_the_derivative_of_the_surrogate(
    estimator: Callable[[Tensor], Tensor],
) -> None:
    x = torch.linspace(-2, 2, 1601, dtype=torch.float64)
    # At the kinks the derivative has two values, and the paper chooses one.
    x = x[(x.abs() - 1).abs() > 1e-9].requires_grad_()
    upstream = torch.randn_like(x)
    (ours,) = torch.autograd.grad(estimator(x), x, upstream)
    (theirs,) = torch.autograd.grad(SURROGATES[estimator](x), x, upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient_agrees_with_finite_differences_of_the_surrogate(
    estimator: Callable[[Tensor], Tensor],
) -> None:
    x = torch.tensor([-1.7, -0.6, -0.1, 0.3, 0.9, 1.4], dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(estimator(x).sum(), x)
    with torch.no_grad():
        surrogate = SURROGATES[estimator]
        numeric = (surrogate(x + 1e-6) - surrogate(x - 1e-6)) / 2e-6
    torch.testing.assert_close(ours, numeric, rtol=0, atol=1e-8)


def test_clipped_ste_passes_the_gradient_at_exactly_one() -> None:
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    sign_clipped_ste(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("limit", [0.5, 1.0, 1.5])
def test_clipped_ste_of_any_range_has_the_gradient_of_that_clamp(limit: float) -> None:
    x = torch.linspace(-2, 2, 1602, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    (ours,) = torch.autograd.grad(sign_clipped_ste(x, limit), x, upstream)
    (theirs,) = torch.autograd.grad(x.clamp(-limit, limit), x, upstream)
    assert torch.equal(ours, theirs)


def test_clipped_ste_passes_the_gradient_at_exactly_its_limit_and_not_beyond() -> None:
    x = torch.tensor([-1.5, 1.5, -1.5000001, 1.5000001], requires_grad=True)
    sign_clipped_ste(x, 1.5).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_upstream_gradient_is_left_as_it_was(estimator: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(8, requires_grad=True)
    upstream = torch.randn(8)
    before = upstream.clone()
    torch.autograd.grad(estimator(x), x, upstream)
    assert torch.equal(upstream, before)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_zero_binarizes_to_plus_one(estimator: Callable[[Tensor], Tensor]) -> None:
    assert estimator(torch.tensor([0.0, -0.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_integers_are_refused(estimator: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(TypeError, match="floating"):
        estimator(torch.tensor([1]))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_result_and_gradient_keep_dtype_and_memory_format(
    estimator: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    y = estimator(x)
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    for tensor in (y, gradient):
        assert (tensor.dtype, tensor.stride()) == (dtype, x.stride())


def kept_bytes(x: Tensor) -> int:
    """What the clipped estimator holds for its backward beyond its input."""
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sign_clipped_ste(x)
    return sum(tensor.nbytes for tensor in kept if tensor.data_ptr() != x.data_ptr())


def test_clipped_ste_keeps_one_byte_per_activation_and_none_per_parameter() -> None:
    parameter = torch.randn(8, requires_grad=True)
    assert kept_bytes(parameter) == 0
    assert kept_bytes(parameter * 2) == 8


@pytest.mark.parametrize("limit", [1.0, 1.5])
def test_clipped_ste_has_the_same_gradient_for_activations_as_for_parameters(limit: float) -> None:
    x = torch.tensor([-2.0, -1.5, -1.0, -0.0, 0.5, 1.0, 1.25, 1.5, 3.0], requires_grad=True)
    upstream = torch.randn(9)
    found = [torch.autograd.grad(sign_clipped_ste(v, limit), x, upstream)[0] for v in (x, x * 1)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], upstream * (x.detach().abs() <= limit))
