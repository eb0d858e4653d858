import pytest
import torch

from bibench_train.ops.clipped_identity import sign_clipped_identity


@pytest.mark.parametrize("limit", [0.5, 1.0, 1.5])
def test_gradient_is_that_of_the_clamp(limit: float) -> None:
    x = torch.linspace(-2, 2, 1602, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    (ours,) = torch.autograd.grad(sign_clipped_identity(x, limit), x, upstream)
    (theirs,) = torch.autograd.grad(x.clamp(-limit, limit), x, upstream)
    assert torch.equal(ours, theirs)


def test_gradient_agrees_with_finite_differences_of_the_clamp() -> None:
    x = torch.tensor([-1.7, -1.4, -0.1, 0.3, 1.3, 1.6], dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(sign_clipped_identity(x, 1.5).sum(), x)
    numeric = ((x + 1e-6).clamp(-1.5, 1.5) - (x - 1e-6).clamp(-1.5, 1.5)) / 2e-6
    torch.testing.assert_close(ours, numeric.detach(), rtol=0, atol=1e-8)


def test_the_gradient_passes_at_exactly_the_limit_and_not_beyond() -> None:
    x = torch.tensor([-1.5, 1.5, -1.5000001, 1.5000001], requires_grad=True)
    sign_clipped_identity(x, 1.5).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_zero_binarizes_to_plus_one() -> None:
    assert sign_clipped_identity(torch.tensor([0.0, -0.0]), 1.5).tolist() == [1.0, 1.0]


def test_upstream_gradient_is_left_as_it_was() -> None:
    x = torch.randn(8, requires_grad=True)
    upstream = torch.randn(8)
    before = upstream.clone()
    torch.autograd.grad(sign_clipped_identity(x, 1.0), x, upstream)
    assert torch.equal(upstream, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_gradient_has_the_dtype_and_layout_of_its_input(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(sign_clipped_identity(x, 1.0), x, torch.ones_like(x))
    assert gradient.dtype == dtype
    assert gradient.stride() == x.stride()


def test_an_expanded_upstream_gradient_is_understood() -> None:
    x = torch.tensor([[0.5, -2.0], [1.0, 3.0]], requires_grad=True)
    sign_clipped_identity(x, 1.0).sum().backward()  # its upstream is one number, expanded
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        sign_clipped_identity(torch.tensor([1]), 1.0)
