import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibench_deploy.targets.dabnn.affine import affine_of_counts

COUNTS = np.arange(0, 577, dtype=np.float32)


def outputs(scale: float, shift: float, at_zero: int) -> np.ndarray:
    a, b = affine_of_counts(np.array([scale]), np.array([shift]), 576, at_zero=at_zero)
    assert a.dtype == b.dtype == np.float32
    return a[0] * COUNTS + b[0]


@given(st.floats(-8, 8), st.floats(-50, 50))
def test_mismatches_become_the_batch_norm_of_the_dot(scale, shift) -> None:
    scale, shift = float(np.float32(scale)), float(np.float32(shift))
    expected = scale * (576.0 - 2 * COUNTS) + shift
    largest = 576 * abs(scale) + abs(shift)
    np.testing.assert_allclose(
        outputs(scale, shift, 0), expected, atol=4 * 2**-23 * largest + 1e-30
    )


@pytest.mark.parametrize("scale", [1.0, -1.0, 0.37, 1e-3])
@pytest.mark.parametrize("dot", [0, 2, -14])
def test_a_sum_of_exactly_zero_is_lifted_above_zero_and_no_other_sign_changes(scale, dot) -> None:
    shift = -scale * dot
    plain, lifted = (outputs(scale, shift, at_zero) for at_zero in (0, 1))
    dots = 576 - 2 * COUNTS
    # The graph's own sign: +1 from 0 on.
    is_high = scale * (dots - dot) >= 0
    np.testing.assert_array_equal(lifted > 0, is_high)
    if scale in (1.0, -1.0):
        assert (plain == 0).sum() == 1
        assert ((plain > 0) != is_high).sum() == 1
    np.testing.assert_allclose(lifted, plain, atol=2**-22 * 576 * abs(scale))


def test_channels_without_a_zero_are_left_as_they_are() -> None:
    scale, shift = np.array([1.0, 1.0]), np.array([0.5, 0.0])
    plain, lifted = (affine_of_counts(scale, shift, 576, at_zero=x) for x in (0, 1))
    assert plain[1][0] == lifted[1][0]
    assert plain[1][1] < lifted[1][1]


def test_a_half_count_behind_a_border_is_lifted_too() -> None:
    # 9 products, of which 3 lie outside: dots are odd or even there.
    _, b = affine_of_counts(np.array([1.0]), np.array([0.0]), 9, at_zero=1)
    assert np.float32(-2) * np.float32(4.5) + b[0] > 0


def test_a_channel_that_is_constant_is_lifted_from_zero() -> None:
    # By no number that a processor may take for 0.
    _, b = affine_of_counts(np.zeros(1), np.zeros(1), 9, at_zero=1)
    assert b[0] == np.finfo(np.float32).tiny


@pytest.mark.parametrize("at_zero", [-1, 1])
@pytest.mark.parametrize("products", [9, 64, 576, 1152])
def test_zero_has_one_sign_with_and_without_a_fused_multiply_add(at_zero, products) -> None:
    scale = np.random.default_rng(0).standard_normal(500)
    a, b = affine_of_counts(scale, np.zeros(500), products, at_zero=at_zero)
    middle = np.float32(products / 2)
    fused = a.astype(np.float64) * middle + b
    assert (np.sign(a * middle + b) == at_zero).all()
    assert (np.sign(fused) == at_zero).all()
    # Without, what is 0 in two roundings is often another number in one.
    _, plain = affine_of_counts(scale, np.zeros(500), products, at_zero=0)
    assert ((a.astype(np.float64) * middle + plain != 0).mean() > 0.2) == (products != 64)
