"""Damaged files end in a finding or in one line, never in a trace, a crash or a hang.

2,000 in CI; more by `BIBENCH_MUTATIONS=100000 pytest -m slow tests/deploy/lint/test_mutations.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.deploy.lint.mutations import Linter, mutate

COUNT = int(os.environ.get("BIBENCH_MUTATIONS", "2000"))
# The same files in every run of CI; others where more are asked for.
IS_FIXED = "BIBENCH_MUTATIONS" not in os.environ
RNG = np.random.default_rng(1)
NETWORK = """g (float[1,4,8,8] x) => (float[1,10] y) {
    a = Conv<pads=[1,1,1,1]>(x, f)  b = BatchNormalization(a, gamma, beta, mean, var)
    h = Clip(b, minus, one)  p = GreaterOrEqual(h, zero)  s = Where(p, one, minus)
    c = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w)  d = Mul(c, alpha)
    e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)  k = Abs(e)  m = ReduceMean(k, axes)
    t = Sign(e)  u = Conv(t, v)  q = Mul(u, m)  o = GlobalAveragePool(q)  r = Flatten(o)
    y = Gemm<transB=1>(r, fc) }"""
ARRAYS = {
    "f": RNG.standard_normal((4, 4, 3, 3)), "gamma": np.ones(4), "beta": np.zeros(4),
    "mean": np.zeros(4), "var": np.ones(4), "minus": -1.0, "one": 1.0, "zero": 0.0,
    "w": np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0),
    "alpha": np.linspace(0.5, 2, 8).reshape(8, 1, 1), "axes": np.array([1, 2, 3]),
    "v": np.where(RNG.standard_normal((8, 8, 1, 1)) >= 0, 1.0, -1.0),
    "fc": RNG.standard_normal((10, 8)),
}  # fmt: skip


@pytest.fixture(scope="module")
def linter() -> Iterator[Linter]:
    made = Linter()
    yield made
    made.close()


@pytest.fixture(scope="module")
def content(make_proto) -> bytes:
    return make_proto(NETWORK, opset=18, **ARRAYS).SerializeToString()


def test_the_file_itself_is_linted(linter, content) -> None:
    assert linter.judge(content) == "linted"
    assert linter.judge(b"no model").startswith("refused ")


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_ends_in_a_finding_or_in_one_line(seed, linter, content) -> None:
    assert linter.judge(mutate(content, seed)).split()[0] in ("linted", "refused")


@pytest.mark.slow
def test_many_damaged_files_end_in_a_finding_or_in_one_line(linter, content) -> None:
    @given(st.integers(0, 2**63))
    @settings(
        max_examples=COUNT, deadline=None, database=None, derandomize=IS_FIXED,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    def judge(seed: int) -> None:
        verdict = linter.judge(mutate(content, seed))
        assert verdict.split()[0] in ("linted", "refused"), verdict

    judge()


@pytest.mark.slow
def test_any_bytes_end_in_one_line(linter) -> None:
    @given(st.binary(max_size=400))
    @settings(
        max_examples=COUNT // 4, deadline=None, database=None, derandomize=IS_FIXED
    )  # fmt: skip
    def judge(damaged: bytes) -> None:
        verdict = linter.judge(damaged)
        assert verdict.split()[0] in ("linted", "refused"), verdict

    judge()
