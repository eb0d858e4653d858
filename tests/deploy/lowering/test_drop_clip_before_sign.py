import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign

RNG = np.random.default_rng(5)
X = 2 * RNG.standard_normal((1, 4, 5, 5)).astype(np.float32)
SIGNS = np.where(RNG.standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0)
ALL = np.float32(1 - 2**-24)  # the largest number below 1
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
    "clip",
    [
        "Clip(x, minus, one)", "Clip(x, far, tiny)", "Clip(x, minus)", "Clip(x, , one)",
        # Their sign is 0 or 1, with the step right above 0.
        "Clip(x, zero, one)", "Clip(x, zero)",
    ],
)  # fmt: skip
def test_a_clip_around_zero_that_only_a_sign_reads_goes(clip, passed) -> None:
    assert clips(passed(LAYER.format(f"h = {clip}"))) == 0


@pytest.mark.parametrize("clip", ["Clip(x, minus, zero)", "Clip(x, tiny, one)"])
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


SHIFTED = (
    "g (float[1,4,5,5] x) => (y) { h = Clip(x, minus, one)  t = Add(h, b)  {}  y = Conv(s, w) }"
)


def shifted(make_graph, b, between="s = Sign(t)"):
    text = SHIFTED.replace("{}", between)
    model = make_graph(text, w=SIGNS, b=np.array(b, np.float32).reshape(1, -1, 1, 1), **BOUNDS)
    canonical_binarization(model)
    return model


@pytest.mark.parametrize("s", [[0.5, -0.5, 0.0, 1e-30], [ALL, -ALL, 2**-24, -0.999]])
def test_a_clip_behind_which_less_than_its_bounds_is_added_goes(s, make_graph, run_graph) -> None:
    before = shifted(make_graph, s)
    after = before.clone()
    drop_clip_before_sign(after)
    assert clips(after) == 0
    # Numbers at the bounds, and at what makes the sum zero, to the last bit.
    edges = np.concatenate([[-1, 1, 1 + 2**-23, -1 - 2**-23, 3, -3, 1e30, -1e30], np.negative(s)])
    edges = np.concatenate([np.nextafter(np.float32(edges), to) for to in (-9, 0, 9)] + [edges])
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.choice(edges.astype(np.float32), (1, 4, 5, 5))
        np.testing.assert_array_equal(run_graph(after, x), run_graph(before, x))


@pytest.mark.parametrize("s", [1.0, -1.0, 1.5, -2.0])
def test_a_clip_behind_which_its_bound_or_more_is_added_stays(s, make_graph) -> None:
    model = shifted(make_graph, [0.1, 0.2, s, 0.3])
    drop_clip_before_sign(model)
    assert clips(model) == 1


def test_the_clip_counts_for_each_sign_that_reads_it(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,5,5] x) => (y) {
        h = Clip(x, zero, one)  t = Add(h, b)  s = Sign(t)  a = Conv(s, w)
        u = Add(h, d)  r = Sign(u)  c = Conv(r, w)  y = Add(a, c) }""",
        w=SIGNS, b=-0.5, d=-0.25, **BOUNDS,
    )  # fmt: skip
    canonical_binarization(model)
    other = model.clone()
    drop_clip_before_sign(model)
    assert clips(model) == 0
    # Read once more without a shift: now 0 is +1 and would not be without the clip.
    clip = next(node for node in other.graph if node.op_type == "Clip")
    second = [node for node in other.graph if node.op_type == "Add"][1]
    second.outputs[0].replace_all_uses_with(clip.outputs[0])
    drop_clip_before_sign(other)
    assert clips(other) == 1


def test_a_max_pooling_lets_the_clip_go(make_graph, run_graph) -> None:
    before = make_graph(
        """g (float[1,4,5,5] x) => (y) { h = Clip(x, minus, one)
        p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(h)  s = Sign(p)  y = Conv(s, w) }""",
        w=SIGNS, **BOUNDS,
    )  # fmt: skip
    canonical_binarization(before)
    after = before.clone()
    drop_clip_before_sign(after)
    assert clips(after) == 0
    np.testing.assert_array_equal(run_graph(after, X), run_graph(before, X))


def test_an_average_pooling_does_not(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,5,5] x) => (y) { h = Clip(x, minus, one)
        p = AveragePool<kernel_shape=[2,2]>(h)  s = Sign(p)  y = Conv(s, w) }""",
        w=SIGNS, **BOUNDS,
    )  # fmt: skip
    canonical_binarization(model)
    drop_clip_before_sign(model)
    assert clips(model) == 1


SLOPES = np.array([0.25, 0.5, 1e-3, 3.0])
BEHIND = {
    "a sign": ("s = Sign(h)", SLOPES),
    "numbers added, of either sign": ("t = Add(h, b)  s = Sign(t)", SLOPES),
    "one slope": ("t = Add(h, b)  s = Sign(t)", np.array([0.1])),
}


def rectifiers(model) -> int:
    return sum(node.op_type in ("PRelu", "LeakyRelu") for node in model.graph)


@pytest.mark.parametrize("form", BEHIND)
def test_a_prelu_that_only_signs_read_goes(form, make_graph, run_graph) -> None:
    behind, slopes = BEHIND[form]
    text = f"g (float[1,4,5,5] x) => (y) {{ h = PRelu(x, a)  {behind}  y = Conv(s, w) }}"
    b = np.array([0.3, -0.3, 0.001, 0.5]).reshape(1, 4, 1, 1)
    before = make_graph(text, w=SIGNS, a=slopes.reshape(-1, 1, 1), b=b)
    canonical_binarization(before)
    after = before.clone()
    drop_clip_before_sign(after)
    assert rectifiers(after) == 0
    np.testing.assert_array_equal(run_graph(after, X), run_graph(before, X))


def test_a_leaky_relu_goes_too(passed) -> None:
    assert rectifiers(passed(LAYER.format("h = LeakyRelu<alpha=0.2>(x)"))) == 0


@pytest.mark.parametrize("slope", [0.0, -0.25, 1e-20])
def test_a_prelu_that_turns_or_loses_a_sign_stays(slope, make_graph) -> None:
    text = "g (float[1,4,5,5] x) => (y) { h = PRelu(x, a)  s = Sign(h)  y = Conv(s, w) }"
    model = make_graph(text, w=SIGNS, a=np.array([0.25, 0.25, slope, 0.25]).reshape(-1, 1, 1))
    canonical_binarization(model)
    drop_clip_before_sign(model)
    assert rectifiers(model) == 1


@pytest.mark.parametrize(
    "body",
    ["t = Tanh(x)  p = LeakyRelu<alpha=0.1>(t)  h = Add(p, half)",
     "t = Tanh(x)  p = LeakyRelu<alpha=0.1>(t)  h = Add(p, far)",
     "c = Clip(x, half)  n = Neg(c)  h = LeakyRelu<alpha=0.1>(n)"],
)  # fmt: skip
def test_a_prelu_stays_where_the_sign_of_what_is_before_never_changes(body, make_graph) -> None:
    """Then the layer would be found to be none, and lost: tanh(x) + 0.5 / 0.1 is never below 0."""
    graph = make_graph(LAYER.format(body), w=SIGNS, half=0.5, **BOUNDS)
    canonical_binarization(graph)
    drop_clip_before_sign(graph)
    assert len(binary_convs(graph)) == 1
