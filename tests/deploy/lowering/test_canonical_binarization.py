import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.graph.load import OLDEST_OPSET
from bibench_deploy.lowering.canonical_binarization import canonical_binarization

RNG = np.random.default_rng(3)
X = RNG.standard_normal((1, 4, 6, 7)).astype(np.float32)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
ALPHA = np.linspace(0.5, 2, 8)
ARRAYS = {
    "w": SIGNS,
    "scaled": SIGNS * ALPHA.reshape(8, 1, 1, 1),
    "twice": np.concatenate([SIGNS, SIGNS], axis=1),
    "bias": np.linspace(-2.1, 3.3, 8),
    "zero": 0.0,
    "one": 1.0,
    "minus": -1.0,
    "half": 0.5,
    "less": -0.5,
    "third": 0.3,
    "amounts": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    "rows": np.where(RNG.standard_normal((168, 3)) >= 0, 0.25, -0.25),
    "across": np.where(RNG.standard_normal((2, 7, 3, 3)) >= 0, 1.0, -1.0),
}

FORMS = {
    "sign": "s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w)",
    "weights of other magnitudes": "s = Sign(x)  y = Conv(s, scaled)",
    "with a bias": "s = Sign(x)  y = Conv(s, w, bias)",
    "magnitudes and a bias": "s = Sign(x)  y = Conv(s, scaled, bias)",
    "activations of other magnitude": (
        "g = GreaterOrEqual(x, zero)  s = Where(g, half, less)  y = Conv(s, scaled, bias)"
    ),
    "straight-through arithmetic": (
        "s = Sign(x)  c = Clip(x, minus, one)  d = Sub(s, c)  e = Add(d, c)  y = Conv(e, w)"
    ),
    "automatic padding": 's = Sign(x)  y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(s, w)',
    "automatic padding at the near side": (
        's = Sign(x)  y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(s, w)'
    ),
    "a Pad of its own": "s = Sign(x)  p = Pad(s, amounts)  y = Conv(p, w)",
    "a Pad and the convolution's own": (
        "s = Sign(x)  p = Pad(s, amounts, zero)  y = Conv<pads=[2,0,1,0]>(p, w)"
    ),
    "two layers": "s = Sign(x)  c = Conv(s, scaled, bias)  t = Sign(c)  y = Conv(t, twice)",
    "two layers on one tensor": (
        "s = Sign(x)  a = Conv(s, w)  t = Sign(x)  b = Conv(t, scaled)  y = Add(a, b)"
    ),
    "two thresholds on one tensor": (
        "g = GreaterOrEqual(x, third)  s = Where(g, one, minus)  a = Conv(s, w)"
        "  t = Sign(x)  b = Conv(t, scaled)  y = Add(a, b)"
    ),
    "activations of 0 and 1": (
        "g = Greater(x, zero)  s = Cast<to=1>(g)  y = Conv<pads=[1,1,1,1]>(s, scaled, bias)"
    ),
    "activations that fall": "n = Less(x, third)  s = Where(n, half, less)  y = Conv(s, scaled)",
    "activations that fall to 0": (
        "n = Less(x, third)  s = Cast<to=1>(n)  y = Conv<pads=[2,0,1,1]>(s, scaled)"
    ),
    "padded with -1": "s = Sign(x)  p = Pad(s, amounts, minus)  y = Conv(p, w)",
    "padded with +1": "s = Sign(x)  p = Pad(s, amounts, one)  y = Conv<strides=[2,1]>(p, w)",
    "flattened behind the sign": "s = Sign(x)  f = Flatten(s)  y = MatMul(f, rows)",
    "turned behind the sign": (
        "s = Sign(x)  t = Transpose<perm=[0,3,1,2]>(s)  y = Conv<pads=[1,1,1,1]>(t, across)"
    ),
    "multiplied by one number per image": (
        "a = Abs(x)  k = ReduceMean(a)  s = Sign(x)  m = Mul(k, s)"
        "  y = Conv<pads=[1,1,1,1]>(m, scaled, bias)"
    ),
}


@pytest.fixture
def both(make_graph):
    """both(nodes): the graph, and the same after the pass."""

    def run(nodes: str, **arrays):
        text = f"g (float[1,4,6,7] x) => (y) {{ {nodes} }}"
        before = make_graph(text, **{**ARRAYS, **arrays})
        after = before.clone()
        canonical_binarization(after)
        return before, after

    return run


@pytest.mark.parametrize("form", FORMS)
def test_the_same_is_computed(form, both, run_graph) -> None:
    before, after = both(FORMS[form])
    np.testing.assert_allclose(run_graph(after, X), run_graph(before, X), rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_layer_is_compare_select_and_exact_signs(form, both) -> None:
    before, after = both(FORMS[form])
    convs = binary_convs(after)
    assert len(convs) == len(binary_convs(before)) > 0
    for conv in convs:
        select = conv.node.inputs[0].producer()
        compare = select.inputs[0].producer()
        assert (compare.op_type, select.op_type) == ("Less", "Where")
        assert [constant_of(value).item() for value in select.inputs[1:]] == [-1, 1]
        assert constant_of(compare.inputs[1]).item() == 0
        assert (conv.binarization.at_threshold, conv.binarization.is_sign) == (1, True)
        assert (np.abs(constant_of(conv.node.inputs[1])) == 1).all()
        assert "auto_pad" not in conv.node.attributes


def test_the_threshold_itself_goes_where_it_went(both, run_graph) -> None:
    third = np.float32(0.3)
    x = np.resize(
        np.array([np.nextafter(third, -1), third, np.nextafter(third, 1)], np.float32), X.shape
    )
    for operator in ("Greater", "GreaterOrEqual"):
        before, after = both(f"g = {operator}(x, third)  s = Where(g, one, minus)  y = Conv(s, w)")
        np.testing.assert_array_equal(run_graph(after, x), run_graph(before, x))


def test_above_zero_only_is_held_too(both, run_graph) -> None:
    before, after = both("g = Greater(x, zero)  s = Cast<to=1>(g)  y = Conv(s, w)")
    x = np.maximum(X, 0)
    np.testing.assert_array_equal(run_graph(after, x), run_graph(before, x))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_becomes_plus_one(zero, both, run_graph) -> None:
    before, after = both(FORMS["sign"])
    x = np.full_like(X, zero)
    assert not run_graph(before, x).any()
    np.testing.assert_array_equal(run_graph(after, x), run_graph(before, np.ones_like(X)))


def test_magnitudes_become_one_scale_per_channel_behind_the_layer(both) -> None:
    _, after = both(FORMS["activations of other magnitude"])
    (conv,) = binary_convs(after)
    assert len(conv.node.inputs) == 2
    multiply = next(iter(conv.node.outputs[0].uses())).node
    scale = constant_of(multiply.inputs[1])
    np.testing.assert_allclose(scale, (ALPHA / 2).reshape(1, 8, 1, 1))
    add = next(iter(multiply.outputs[0].uses())).node
    np.testing.assert_allclose(constant_of(add.inputs[1]).reshape(-1), ARRAYS["bias"])


def test_a_layer_of_exact_signs_gets_no_scale(both) -> None:
    _, after = both(FORMS["with a bias"])
    assert [node.op_type for node in after.graph if node.op_type in ("Mul", "Add")] == []


def test_names_stay_unique(both) -> None:
    _, after = both(FORMS["two thresholds on one tensor"])
    names = [value.name for node in after.graph for value in node.outputs]
    assert len(set(names)) == len(names)


def test_one_tensor_is_binarized_once(both) -> None:
    _, after = both(FORMS["two layers on one tensor"])
    used = {conv.node.inputs[0] for conv in binary_convs(after)}
    assert len(used) == 1


def test_pads_become_the_convolutions_own(both) -> None:
    _, after = both(FORMS["a Pad and the convolution's own"])
    (conv,) = binary_convs(after)
    assert list(conv.node.attributes.get_ints("pads")) == [3, 2, 1, 1]


LINEAR = np.where(RNG.standard_normal((3, 6)) >= 0, 1.0, -1.0) * [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    "product",
    [
        "Gemm<transB=1>(s, w, b)",
        "Gemm<transB=1>(s, w, row)",
        "Gemm<transB=1>(s, w, one)",
        "Gemm(s, wt, b)",
        "MatMul(s, wt)",
        "Gemm(s, unit)",
    ],
)
def test_linear_layers_compute_the_same(product, make_graph, run_graph) -> None:
    bias = np.array([1.0, -2.0, 3.0])
    arrays = {"w": LINEAR, "wt": LINEAR.T, "b": bias, "row": bias[None], "one": [2.0]}
    before = make_graph(
        f"g (float[1,6] x) => (y) {{ s = Sign(x)  y = {product} }}",
        unit=np.sign(LINEAR.T),
        **arrays,
    )
    after = before.clone()
    canonical_binarization(after)
    x = RNG.standard_normal((1, 6)).astype(np.float32)
    np.testing.assert_allclose(run_graph(after, x), run_graph(before, x), rtol=1e-6)
    (conv,) = binary_convs(after)
    assert (conv.magnitude == 1).all()


def test_a_one_dimensional_layer_computes_the_same(make_graph, run_graph) -> None:
    before = make_graph(
        "g (float[1,4,9] x) => (y) { s = Sign(x)  y = Conv<pads=[1,2], strides=[2]>(s, w, b) }",
        w=SIGNS[:, :, 0] * 3,
        b=ARRAYS["bias"],
    )
    after = before.clone()
    canonical_binarization(after)
    x = RNG.standard_normal((1, 4, 9)).astype(np.float32)
    np.testing.assert_allclose(run_graph(after, x), run_graph(before, x), rtol=1e-5, atol=1e-5)


def test_the_oldest_opset_that_is_read_can_be_lowered(make_graph, run_graph) -> None:
    before = make_graph(
        "g (float[1,4,6,7] x) => (y) { s = Sign(x)  y = Conv(s, w, b) }",
        opset=OLDEST_OPSET,
        w=ARRAYS["scaled"],
        b=ARRAYS["bias"],
    )
    after = before.clone()
    canonical_binarization(after)
    np.testing.assert_allclose(run_graph(after, X), run_graph(before, X), rtol=0, atol=2e-5)


def test_a_float_graph_is_left_as_it_is(make_graph) -> None:
    model = make_graph(
        "g (float[1,4,6,7] x) => (y) { c = Conv(x, w)  y = Relu(c) }",
        w=RNG.standard_normal((8, 4, 3, 3)),
    )
    canonical_binarization(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]


# What stands before a sign, and goes with the widest one.
BEFORE = ["Relu(x)", "Tanh(x)", "Clip(x, minus, zero)", "Div(x, three)", "Neg(x)"]


@pytest.mark.parametrize("before", BEFORE)
def test_the_widest_sign_leaves_out_what_stands_before_it(before, make_graph, run_graph) -> None:
    rng = np.random.default_rng(8)
    text = f"""g (float[1,4,5,5] x) => (y) {{
        h = {before}  g = Greater(h, half)  s = Where(g, three, minus_three)  t = Sign(h)
        a = Conv<pads=[1,1,1,1]>(s, w)  b = Conv<pads=[1,1,1,1]>(t, w)
        y = Concat<axis=1>(a, b) }}"""
    model = make_graph(
        text.replace("half", "minus_half" if "zero" in before else "half"),
        w=np.where(rng.standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0),
        half=0.4,
        minus_half=-0.4,
        three=3.0,
        minus_three=-3.0,
        minus=-1.0,
        zero=0.0,
    )
    x = rng.standard_normal((1, 4, 5, 5)).astype(np.float32)
    expected = run_graph(model, x)
    layers = len(binary_convs(model))
    canonical_binarization(model, is_widest=True)
    operator = before.partition("(")[0]
    # A falling function turns the levels, and stays.
    assert (operator in [node.op_type for node in model.graph]) == (operator == "Neg")
    assert len(binary_convs(model)) == layers
    np.testing.assert_allclose(run_graph(model, x), expected, atol=1e-5)


def test_a_clip_that_a_shortcut_reads_too_stays_before_the_sign(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,5,5] x) => (y) {
            h = Clip(x, minus, one)  s = Sign(h)
            a = Conv<pads=[1,1,1,1]>(s, w)  y = Add(a, h) }""",
        w=np.where(RNG.standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0),
        minus=-1.0,
        one=1.0,
    )
    canonical_binarization(model, is_widest=True)
    (conv,) = binary_convs(model)
    assert conv.facts.source == "h"
