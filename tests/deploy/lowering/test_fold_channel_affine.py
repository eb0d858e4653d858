import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine

RNG = np.random.default_rng(4)
CHANNELS = 3
X = RNG.standard_normal((1, 2, 5, 4)).astype(np.float32)
SIGNS = np.where(RNG.standard_normal((CHANNELS, 2, 3, 3)) >= 0, 1.0, -1.0)
# Rounding of one float32 operation; a chain of them adds up.
EPSILON = float(np.finfo(np.float32).eps)


def fold(model):
    folded = model.clone()
    canonical_binarization(folded)
    fold_channel_affine(folded)
    return folded


def operators_behind(model) -> list[str]:
    """What reads the layer, one after the other."""
    (conv,) = binary_convs(model)
    names, value = [], conv.node.outputs[0]
    while len(uses := list(value.uses())) == 1:
        names.append(uses[0].node.op_type)
        value = uses[0].node.outputs[0]
    return names


numbers = st.lists(st.floats(-4, 4, width=32), min_size=CHANNELS, max_size=CHANNELS).map(np.array)
factors = numbers.map(lambda array: np.where(np.abs(array) < 0.25, 0.25, array))
steps = st.one_of(
    st.tuples(st.just("Mul"), st.booleans(), numbers),
    st.tuples(st.just("Add"), st.booleans(), numbers),
    st.tuples(st.just("Sub"), st.booleans(), numbers),
    st.tuples(st.just("Div"), st.just(True), factors),
)
norms = st.none() | st.fixed_dictionaries(
    {
        "gamma": numbers,
        "beta": numbers,
        "mu": numbers,
        "var": numbers.map(lambda array: np.abs(array) + 0.01),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    chain=st.lists(steps, max_size=4),
    norm=norms,
    bias=st.none() | numbers,
    scale=factors,
    is_scalar=st.booleans(),
)
def test_any_chain_of_constants_becomes_one_batch_norm(
    make_graph, run_graph, chain, norm, bias, scale, is_scalar
) -> None:
    arrays = {"w": SIGNS * scale.reshape(-1, 1, 1, 1)}
    if bias is not None:
        arrays["b"] = bias
    nodes = [f"s = Sign(x)  c = Conv(s, w{'' if bias is None else ', b'})"]
    # The largest number that each step may hold decides how much rounding to expect.
    value, bound = "c", np.abs(scale) * 18 + (0 if bias is None else np.abs(bias))
    for index, (operator, is_left, array) in enumerate(chain):
        array = array[:1] if is_scalar else array
        arrays[f"k{index}"] = array if is_scalar else array.reshape(-1, 1, 1)
        operands = f"{value}, k{index}" if is_left else f"k{index}, {value}"
        value = f"v{index}"
        nodes.append(f"{value} = {operator}({operands})")
        size = np.abs(array)
        if operator == "Mul":
            bound = bound * size
        elif operator == "Div":
            bound = bound / size
        else:
            bound = bound + size
    if norm is not None:
        arrays.update(norm)
        nodes.append(f"n = BatchNormalization({value}, gamma, beta, mu, var)")
        value = "n"
        spread = np.abs(norm["gamma"]) / np.sqrt(norm["var"])
        bound = spread * (bound + np.abs(norm["mu"])) + np.abs(norm["beta"])
    text = f"g (float[1,2,5,4] x) => (y) {{ {'  '.join(nodes)}  y = Relu({value}) }}"
    before = make_graph(text, **arrays)
    after = fold(before)
    expected, found = run_graph(before, X), run_graph(after, X)
    tolerance = 4 * (len(chain) + 4) * EPSILON * bound.max() + 1e-30
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    assert operators_behind(after) in (["BatchNormalization", "Relu"], ["Relu"])
    (conv,) = binary_convs(after)
    assert len(conv.node.inputs) == 2


NORM = {"gamma": [0.0, -1.5, 2.0], "beta": [1.0, 2, 3], "mu": [4.0, -5, 6], "var": [0.5, 1, 2]}
BATCH_NORM = "n = BatchNormalization<epsilon=0.01>({}, gamma, beta, mu, var)"


def test_the_formula_is_in_double_precision_rounded_once(make_graph) -> None:
    model = fold(
        make_graph(
            f"g (float[1,2,5,4] x) => (y) {{"
            f"s = Sign(x)  c = Conv(s, w, b)  {BATCH_NORM.format('c')}  y = Relu(n) }}",
            w=SIGNS * 0.1,
            b=[7.0, 8.0, 9.0],
            **NORM,
        )
    )
    norm = next(node for node in model.graph if node.op_type == "BatchNormalization")
    gamma, beta, mean, variance = (constant_of(value) for value in norm.inputs[1:])
    scale = np.float64(np.float32(0.1))
    g, b, m, v = (np.array(NORM[key]) for key in ("gamma", "beta", "mu", "var"))
    np.testing.assert_array_equal(gamma, (g * scale).astype(np.float32))
    epsilon = norm.attributes.get_float("epsilon")
    expected = b + g * (np.array([7, 8, 9]) - m) / np.sqrt(v + epsilon)
    np.testing.assert_array_equal(beta, expected.astype(np.float32))
    assert not mean.any()
    np.testing.assert_array_equal(variance, v.astype(np.float32))
    assert epsilon == pytest.approx(0.01)


KEPT = {
    "a branch": "d = Mul(c, alpha)  y = Add(c, d)",
    "a constant over c": "y = Div(one, c)",
    "a factor per row": "y = Mul(c, rows)",
    "a factor per column that has as many numbers as channels": "y = Mul(c, columns)",
    "a computed factor": "k = ReduceMean<keepdims=1>(x, axes)  y = Mul(c, k)",
}


@pytest.mark.parametrize("form", KEPT)
def test_what_is_no_constant_per_channel_stays_and_is_computed_as_before(
    form, make_graph, run_graph
) -> None:
    before = make_graph(
        f"g (float[1,2,5,5] x) => (y) {{ s = Sign(x)  c = Conv(s, w)  {KEPT[form]} }}",
        w=SIGNS,
        alpha=np.array([1.0, 2, 3]).reshape(3, 1, 1),
        one=1.0,
        rows=np.array([1.0, 2, 3]).reshape(3, 1),
        columns=np.array([1.0, 2, 3]),
        axes=np.array([1, 2, 3]),
        **NORM,
    )
    x = np.concatenate([X, X[..., :1] - 1], axis=-1) + np.float32(0.3)
    after = fold(before)
    last = list(before.graph)[-1].op_type
    assert last in [node.op_type for node in after.graph]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(run_graph(after, x), run_graph(before, x), rtol=1e-5, atol=1e-5)


BEHIND = {
    "a factor": "y = Mul(n, alpha)",
    "a shift": "y = Add(n, alpha)",
    "another batch norm": "y = BatchNormalization<epsilon=0.5>(n, beta, gamma, var, var)",
    "all of them": "p = Mul(n, alpha)  q = BatchNormalization(p, beta, mu, gamma, var)"
    "  y = Sub(alpha, q)",
}


@pytest.mark.parametrize("form", BEHIND)
def test_what_follows_the_batch_norm_is_folded_too(form, make_graph, run_graph) -> None:
    before = make_graph(
        f"g (float[1,2,5,4] x) => (y) {{ s = Sign(x)  c = Conv(s, w)"
        f"  {BATCH_NORM.format('c')}  {BEHIND[form]} }}",
        w=SIGNS,
        alpha=np.array([1.0, -2, 3]).reshape(3, 1, 1),
        **NORM,
    )
    after = fold(before)
    assert operators_behind(after) == ["BatchNormalization"]
    np.testing.assert_allclose(run_graph(after, X), run_graph(before, X), rtol=1e-5, atol=1e-4)


def test_a_layer_whose_output_is_the_graphs_is_folded_up_to_there(make_graph, run_graph) -> None:
    before = make_graph(
        "g (float[1,2,5,4] x) => (y, c) { s = Sign(x)  c = Conv(s, w)  y = Mul(c, k) }",
        w=SIGNS,
        k=2.0,
    )
    after = fold(before)
    assert [value.name for value in after.graph.outputs] == ["y", "c"]
    np.testing.assert_array_equal(run_graph(after, X), run_graph(before, X))


def test_a_layer_with_nothing_behind_it_gets_nothing(make_graph) -> None:
    after = fold(make_graph("g (float[1,2,5,4] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=SIGNS))
    assert "BatchNormalization" not in [node.op_type for node in after.graph]


def test_a_lone_bias_becomes_a_batch_norm(make_graph, run_graph) -> None:
    before = make_graph(
        "g (float[1,2,5,4] x) => (y) { s = Sign(x)  y = Conv(s, w, b) }", w=SIGNS, b=[1.0, 2, 3]
    )
    after = fold(before)
    assert operators_behind(after) == ["BatchNormalization"]
    np.testing.assert_array_equal(run_graph(after, X), run_graph(before, X))


def test_a_linear_layer_is_folded_too(make_graph, run_graph) -> None:
    before = make_graph(
        "g (float[1,6] x) => (y) { s = Sign(x)  c = Gemm<transB=1>(s, w, b)  d = Mul(c, k)"
        f"  {BATCH_NORM.format('d')}  y = Relu(n) }}",
        w=SIGNS.reshape(3, -1)[:, :6] * 0.5,
        b=[1.0, 2, 3],
        k=[2.0, 3, 4],
        **NORM,
    )
    after = fold(before)
    assert operators_behind(after) == ["BatchNormalization", "Relu"]
    x = RNG.standard_normal((1, 6)).astype(np.float32)
    np.testing.assert_allclose(run_graph(after, x), run_graph(before, x), rtol=1e-5, atol=1e-5)


def test_the_batch_norm_of_a_float_layer_stays(make_graph) -> None:
    after = fold(
        make_graph(
            f"g (float[1,2,5,4] x) => (y) {{ c = Conv(x, w)  {BATCH_NORM.format('c')}"
            "  y = Relu(n) }",
            w=RNG.standard_normal((3, 2, 3, 3)),
            **NORM,
        )
    )
    assert [node.op_type for node in after.graph] == ["Conv", "BatchNormalization", "Relu"]
