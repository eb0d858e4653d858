import pytest
import torch

from bibench_train.ops.sine_sign import mean_squared_cosine, sign_sine

NO, YES = torch.tensor(False), torch.tensor(True)


def test_the_wave_is_the_sine_and_its_gradient_the_derivative() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(sign_sine(weight, 20.0, NO), (20 * weight).sin())
    assert torch.autograd.gradcheck(lambda w: sign_sine(w, 20.0, NO), (weight,))


def test_the_sign_has_the_gradient_of_the_wave() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(weight)
    found = [
        torch.autograd.grad(sign_sine(weight, 20.0, is_binary), weight, upstream)[0]
        for is_binary in (NO, YES)
    ]
    assert torch.equal(found[0], found[1])


def test_the_square_wave_is_plus_or_minus_one_and_plus_one_at_zero() -> None:
    weight = torch.tensor([0.0, -0.0, 0.05, -0.05, 0.2, -0.2])
    assert sign_sine(weight, 20.0, YES).tolist() == [1.0, 1.0, 1.0, -1.0, -1.0, 1.0]


def test_the_mean_squared_cosine_and_its_gradient_are_the_formula() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        mean_squared_cosine(weight, 20.0), (0.5 + 0.5 * (2 * 20 * weight).cos()).mean()
    )
    assert torch.autograd.gradcheck(lambda w: mean_squared_cosine(w, 20.0), (weight,))


def test_the_mean_squared_cosine_is_zero_where_every_wave_is_at_its_crest() -> None:
    weight = torch.tensor([torch.pi / 40, -torch.pi / 40, 3 * torch.pi / 40])
    assert mean_squared_cosine(weight, 20.0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("is_binary", [NO, YES])
def test_result_and_gradient_keep_dtype_and_memory_format(
    dtype: torch.dtype, is_binary: torch.Tensor
) -> None:
    weight = torch.randn(6, 3, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    weight.requires_grad_()
    wave = sign_sine(weight, 20.0, is_binary)
    (gradient,) = torch.autograd.grad(wave, weight, torch.randn_like(wave))
    for tensor in (wave, gradient):
        assert (tensor.dtype, tensor.stride()) == (dtype, weight.stride())


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="floating"):
        sign_sine(torch.tensor([1]), 20.0, YES)
