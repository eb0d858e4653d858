import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering import centre_thresholds as module
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.centre_thresholds import centre_thresholds, centred_offset
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine

RNG = np.random.default_rng(3)
TERMS = 18
SIGNS = np.where(RNG.standard_normal((4, 2, 3, 3)) >= 0, 1.0, -1.0)
X = RNG.standard_normal((1, 2, 6, 6)).astype(np.float32)
LAYERS = """g (float[1,2,6,6] x) => (y) {{
    s = Sign(x)  a = Conv<pads=[1,1,1,1]>(s, w)  {between}
    g = {compare}(h, t)  u = Where(g, one, minus)  y = Conv(u, v) }}"""


def make(make_graph, compare="GreaterOrEqual", threshold=0.0, between="h = Mul(a, scale)", **more):
    return make_graph(
        LAYERS.format(compare=compare, between=between),
        w=SIGNS,
        v=np.where(RNG.standard_normal((4, 4, 1, 1)) >= 0, 1.0, -1.0),
        t=threshold, one=1.0, minus=-1.0,
        scale=np.array([0.5, -0.5, 3.0, 1.0]).reshape(4, 1, 1),
        **more,
    )  # fmt: skip


def numbers_before_the_second_sign(model):
    """What the batch norm behind the first layer makes of each sum that it can give, [O, sums]."""
    conv = binary_convs(model)[0]
    (norm,) = (use.node for use in conv.node.outputs[0].uses())
    gamma, beta, mean, variance = (constant_of(value) for value in norm.inputs[1:])
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    factor = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
    sums = np.arange(-TERMS, TERMS + 1)
    return factor[:, None] * (sums - mean[:, None]) + beta[:, None], np.abs(factor)


def lower(model):
    lowered = model.clone()
    canonical_binarization(lowered)
    fold_channel_affine(lowered)
    centre_thresholds(lowered)
    return lowered


@pytest.mark.parametrize("compare", ["GreaterOrEqual", "Greater"])
@pytest.mark.parametrize("threshold", [0.0, 4.0, -3.0, 0.3])
def test_no_sum_comes_near_the_threshold_and_each_sign_stays(
    compare, threshold, make_graph, run_graph
) -> None:
    model = make(make_graph, compare, threshold)
    lowered = lower(model)
    numbers, factor = numbers_before_the_second_sign(lowered)
    assert (np.abs(numbers).min(axis=1) >= 0.499 * factor).all()
    np.testing.assert_array_equal(run_graph(lowered, X), run_graph(model, X))


def test_a_strict_comparison_keeps_its_zero_behind_a_batch_norm(make_graph, run_graph) -> None:
    model = make(
        make_graph, "Greater", 0.0, "h = BatchNormalization(a, gamma, beta, mean, variance)",
        gamma=np.ones(4), beta=np.zeros(4), mean=np.array([0.0, 4, -4, 2]), variance=np.ones(4),
    )  # fmt: skip
    lowered = lower(model)
    numbers, factor = numbers_before_the_second_sign(lowered)
    assert (np.abs(numbers).min(axis=1) >= 0.499 * factor).all()
    np.testing.assert_array_equal(run_graph(lowered, X), run_graph(model, X))


def test_what_a_shortcut_reads_too_stays(make_graph) -> None:
    model = make_graph(
        LAYERS.format(compare="GreaterOrEqual", between="h = Mul(a, scale)").replace(
            "y = Conv(u, v)", "c = Conv(u, v)  y = Add(c, h)"
        ),
        w=SIGNS, v=SIGNS[:, :1, :1, :1].repeat(4, axis=1), t=0.0, one=1.0, minus=-1.0,
        scale=np.full((4, 1, 1), 0.5),
    )  # fmt: skip
    canonical_binarization(model)
    fold_channel_affine(model)
    conv = binary_convs(model)[0]
    (norm,) = (use.node for use in conv.node.outputs[0].uses())
    before = norm.inputs[2]
    centre_thresholds(model)
    assert norm.inputs[2] is before


def test_the_sign_of_pooled_numbers_is_centred_too(make_graph, run_graph) -> None:
    model = make(make_graph, between="b = Mul(a, scale)  h = MaxPool<kernel_shape=[2,2]>(b)")
    lowered = lower(model)
    numbers, factor = numbers_before_the_second_sign(lowered)
    assert (np.abs(numbers).min(axis=1) >= 0.499 * factor).all()
    np.testing.assert_array_equal(run_graph(lowered, X), run_graph(model, X))


@settings(max_examples=200, deadline=None)
@given(factor=st.floats(-100, 100), offset=st.floats(-1000, 1000))
def test_every_sum_keeps_its_sign(factor, offset) -> None:
    sums = np.arange(-TERMS, TERMS + 1)
    centred = centred_offset(np.array([factor]), np.array([offset]), TERMS)[0]
    before, after = factor * sums + offset, factor * sums + centred
    # At rounding from zero, either sign is right.
    is_clear = np.abs(before) > 1e-12 * (np.abs(factor) * TERMS + abs(offset))
    np.testing.assert_array_equal((after >= 0)[is_clear], (before >= 0)[is_clear])


def test_the_example_in_the_text_is_right() -> None:
    assert doctest.testmod(module).attempted
