from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibench_deploy.tracks._quadratic_mean import quadratic_mean

ratios = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("speed_up", "compression", "overall"), [(5.45, 15.62, 11.70), (4.89, 15.52, 11.51)]
)
def test_the_printed_overall_is_that_of_the_printed_parts(speed_up, compression, overall):
    assert round(quadratic_mean([speed_up, compression]), 2) == overall


@given(ratios)
def test_it_lies_between_the_mean_and_the_largest(values):
    mean = sum(values) / len(values)
    assert mean * (1 - 1e-12) <= quadratic_mean(values) <= max(values) * (1 + 1e-12)


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="at least one value"):
        quadratic_mean([])
