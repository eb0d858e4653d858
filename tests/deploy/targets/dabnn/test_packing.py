import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibench_deploy.targets.dabnn.packing import pack_filters, unpack_filters, words_per_filter


def bit_by_bit(weight, words: int) -> list[int]:
    """The rule as it is written down, without numpy."""
    packed = []
    for signs in weight.tolist():
        values = [0] * words
        place = 0
        for row in signs:
            for pixel in row:
                for sign in pixel:
                    if sign > 0:
                        values[place // 64] |= 1 << place % 64
                    place += 1
        packed += values
    return packed


sizes = st.tuples(
    st.integers(1, 4),
    st.integers(1, 4),
    st.one_of(st.integers(1, 20), st.sampled_from([32, 63, 64, 65, 96, 128, 192, 256])),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2),
)


@given(sizes)
def test_every_filter_is_packed_as_bit_by_bit(drawn) -> None:
    outputs, kernel, channels, seed, stride = drawn
    generator = np.random.default_rng(seed)
    shape = (outputs, kernel, kernel, channels)
    weight = np.where(generator.standard_normal(shape) > 0, 1, -1).astype(np.float32)
    packed = pack_filters(weight, (stride, stride))
    words = words_per_filter((kernel, kernel), channels, (stride, stride))
    assert packed.dtype == np.uint64
    assert packed.tolist() == bit_by_bit(weight, words)
    np.testing.assert_array_equal(unpack_filters(packed, shape, (stride, stride)), weight)


@pytest.mark.parametrize(
    ("kernel", "channels", "strides", "words"),
    [
        # 3×3 over 64 channels is the one filter that is not filled up to 128 bits …
        ((3, 3), 64, (1, 1), 9),
        ((3, 3), 64, (2, 2), 9),
        # … and only with equal strides; every other kernel over 64 is.
        ((3, 3), 64, (1, 2), 10),
        ((1, 1), 64, (1, 1), 2),
        ((5, 5), 64, (1, 1), 26),
        ((3, 3), 32, (1, 1), 6),
        ((3, 3), 128, (1, 1), 18),
        ((1, 1), 3, (1, 1), 2),
    ],
)
def test_filters_are_filled_up_to_128_bits_but_for_one_kernel(
    kernel, channels, strides, words
) -> None:
    assert words_per_filter(kernel, channels, strides) == words


def test_a_zero_weight_would_be_read_as_minus_one() -> None:
    assert pack_filters(np.zeros((1, 1, 1, 3), np.float32), (1, 1)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        ([1, 0, 1], (2, 1, 1, 3), "3 words, and 2 filters of 1×1×3 take 4"),
        ([8, 0], (1, 1, 1, 3), "a bit that only fills up is set"),
        ([0, 1], (1, 1, 1, 3), "a bit that only fills up is set"),
        ([0, 0], (1, 0, 1, 3), "filters of shape"),
        ([0, 0], (3,), "filters of shape"),
    ],
)
def test_words_that_are_no_such_filters_are_told(words, shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_filters(np.array(words, np.uint64), shape, (1, 1))
