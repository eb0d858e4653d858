import numpy as np
import pytest

from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign

RNG = np.random.default_rng(5)
X = 2 * RNG.standard_normal((1, 4, 5, 5)).astype(np.float32)
SIGNS = np.where(RNG.standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0)
BOUNDS = {"one": 1.0, "minus": -1.0, "zero": 0.0, "tiny": 1e-30, "far": -100.0}
LAYER = "g (float[1,4,5,5] x) => (y) {{ {}  s = Sign(h)  y = Conv(s, w) }}"


@pytest.fixture
def passed(make_graph, run_graph):
    """passed(text): the graph after the pass, which must compute as before."""

    def run(text: str):
        before = make_graph(text, w=SIGNS, **BOUNDS)
        canonical_binarization(before)
        after = before.clone()
        drop_clip_before_sign(after)
        np.testing.assert_array_equal(run_graph(after, X), run_graph(before, X))
        return after

    return run


def clips(model) -> int:
    return sum(node.op_type == "Clip" for node in model.graph)


@pytest.mark.parametrize(
    "clip", ["Clip(x, minus, one)", "Clip(x, far, tiny)", "Clip(x, minus)", "Clip(x, , one)"]
)
def test_a_clip_around_zero_that_only_a_sign_reads_goes(clip, passed) -> None:
    assert clips(passed(LAYER.format(f"h = {clip}"))) == 0


@pytest.mark.parametrize(
    "clip", ["Clip(x, zero, one)", "Clip(x, minus, zero)", "Clip(x, zero)", "Clip(x, tiny, one)"]
)
def test_a_clip_that_changes_signs_stays(clip, passed) -> None:
    assert clips(passed(LAYER.format(f"h = {clip}"))) == 1


def test_a_clip_that_a_shortcut_reads_stays(passed) -> None:
    text = """g (float[1,4,5,5] x) => (y) {
        h = Clip(x, minus, one)  s = Sign(h)  c = Conv<pads=[1,1,1,1]>(s, w)  y = Add(c, h) }"""
    assert clips(passed(text)) == 1


def test_a_clip_that_is_an_output_stays(passed) -> None:
    text = """g (float[1,4,5,5] x) => (y, h) {
        h = Clip(x, minus, one)  s = Sign(h)  y = Conv(s, w) }"""
    assert clips(passed(text)) == 1


def test_a_clip_that_two_layers_sign_goes(passed) -> None:
    text = """g (float[1,4,5,5] x) => (y) {
        h = Clip(x, minus, one)  s = Sign(h)  a = Conv(s, w)
        t = Sign(h)  b = Conv(t, w)  y = Add(a, b) }"""
    assert clips(passed(text)) == 0


def test_other_nodes_before_a_sign_stay(passed) -> None:
    assert "Neg" in [node.op_type for node in passed(LAYER.format("h = Neg(x)")).graph]


def test_the_clip_of_a_float_layer_stays(make_graph) -> None:
    model = make_graph(
        "g (float[1,4,5,5] x) => (y) { h = Clip(x, minus, one)  y = Conv(h, w) }",
        w=RNG.standard_normal((4, 4, 3, 3)),
        **BOUNDS,
    )
    drop_clip_before_sign(model)
    assert clips(model) == 1
