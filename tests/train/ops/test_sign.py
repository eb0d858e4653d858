import pytest
import torch

from bibench_train.ops.sign import sign


def test_zero_of_either_sign_binarizes_to_plus_one() -> None:
    assert sign(torch.tensor([0.0, -0.0])).tolist() == [1.0, 1.0]


def test_the_smallest_negative_number_binarizes_to_minus_one() -> None:
    assert sign(torch.tensor([-1e-45])).item() == -1.0


def test_equals_the_form_that_is_exported() -> None:
    x = torch.randn(1000)
    assert torch.equal(sign(x), torch.where(x >= 0.0, 1.0, -1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_shape_dtype_and_memory_format(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5).to(dtype).to(memory_format=torch.channels_last)
    y = sign(x)
    assert (y.shape, y.dtype, y.stride()) == (x.shape, dtype, x.stride())


def test_leaves_its_input_as_it_was() -> None:
    x = torch.tensor([-0.5, 0.5])
    sign(x)
    assert x.tolist() == [-0.5, 0.5]


def test_integers_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"call x\.float\(\) first"):
        sign(torch.tensor([1, 2]))


def test_the_result_can_go_into_given_memory() -> None:
    x = torch.tensor([-0.5, 0.0, 0.5])
    out = torch.empty(3)
    assert sign(x, out=out) is out
    assert out.tolist() == [-1.0, 1.0, 1.0]
    assert sign(x, out=x).tolist() == [-1.0, 1.0, 1.0]
