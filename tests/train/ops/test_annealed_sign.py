import pytest
import torch

from bibench_train.ops.annealed_sign import HARD_BELOW, sign_annealed


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1.1e-7])
def test_above_the_limit_it_is_the_clamped_line(temperature: float) -> None:
    x = torch.tensor([-1.4, -0.2, -1e-8, 0.0, 1e-8, 0.25, 1.4])
    expected = (x / temperature).clamp(-1, 1)
    assert torch.equal(sign_annealed(x, torch.tensor(temperature)), expected)


@pytest.mark.parametrize("temperature", [9.9e-8, 1e-30, 0.0])
def test_below_the_limit_it_is_the_sign_and_zero_becomes_plus_one(temperature: float) -> None:
    x = torch.tensor([-1.4, -1e-30, -0.0, 0.0, 1e-30, 1.4])
    assert sign_annealed(x, torch.tensor(temperature)).tolist() == [-1, -1, 1, 1, 1, 1]
    assert temperature < HARD_BELOW


@pytest.mark.parametrize("temperature", [1.0, 0.01, 0.0])
def test_the_gradient_is_the_identity_whatever_the_temperature(temperature: float) -> None:
    x = torch.tensor([-9.0, -0.5, 0.0, 0.001, 2.0], requires_grad=True)
    upstream = torch.randn(5)
    (gradient,) = torch.autograd.grad(sign_annealed(x, torch.tensor(temperature)), x, upstream)
    assert torch.equal(gradient, upstream)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_dtype_is_kept_and_no_number_is_lost_to_overflow(dtype: torch.dtype) -> None:
    x = torch.tensor([-1.5, 0.0, 1.5], dtype=dtype)
    for temperature in (1.0, 1e-6, 1e-8):
        result = sign_annealed(x, torch.tensor(temperature, dtype=dtype))
        assert result.dtype == dtype
        assert result.abs().max() == 1
        assert result.isfinite().all()


def test_it_runs_where_numbers_are_not_known() -> None:
    assert sign_annealed(torch.zeros(3, device="meta"), torch.ones((), device="meta")).is_meta


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        sign_annealed(torch.tensor([1]), torch.tensor(1.0))
