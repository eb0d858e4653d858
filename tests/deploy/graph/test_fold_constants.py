import numpy as np
import pytest

from bibench_deploy.graph.fold_constants import LARGEST_FOLDED_BYTES, constant_of, evaluate

X = np.random.default_rng(1).standard_normal((1, 4, 6, 6)).astype(np.float32)
WEIGHT = np.random.default_rng(2).standard_normal((5, 4, 3, 3)).astype(np.float32)
CONV = "g (float[1,4,6,6] x) => (float[1,5,4,4] y) {{ {} }}"

WEIGHT_CHAINS = {
    "mean magnitude times sign": """
        a = Abs(w)  m = ReduceMean<keepdims=1>(a, axes)  s = Sign(w)  b = Mul(m, s)
        y = Conv(x, b)""",
    "three means": """
        a = Abs(w)  m1 = ReduceMean<keepdims=1>(a, axis3)  m2 = ReduceMean<keepdims=1>(m1, axis2)
        m = ReduceMean<keepdims=1>(m2, axis1)  s = Sign(w)  b = Mul(m, s)  y = Conv(x, b)""",
    "straight-through arithmetic": """
        s = Sign(w)  c = Clip(w, low, high)  d = Sub(s, c)  b = Add(d, c)  y = Conv(x, b)""",
    "where of a comparison": """
        g = GreaterOrEqual(w, zero)  b = Where(g, high, low)  y = Conv(x, b)""",
    "through a cast": """
        g = Greater(w, zero)  f = Cast<to=1>(g)  t = Mul(f, two)  b = Sub(t, high)
        y = Conv(x, b)""",
    "centred": """
        m = ReduceMean<keepdims=1>(w, axes)  c = Sub(w, m)  b = Sign(c)  y = Conv(x, b)""",
}
CONSTANTS = {
    "w": WEIGHT,
    "axes": np.array([1, 2, 3]),
    "axis1": np.array([1]),
    "axis2": np.array([2]),
    "axis3": np.array([3]),
    "low": -1.0,
    "high": 1.0,
    "zero": 0.0,
    "two": 2.0,
}


@pytest.mark.parametrize("chain", WEIGHT_CHAINS)
def test_a_weight_chain_becomes_one_tensor_with_the_same_numbers(
    chain, make_proto, make_graph, run_graph
) -> None:
    text = CONV.format(WEIGHT_CHAINS[chain])
    model = make_graph(text, **CONSTANTS)
    (conv,) = model.graph
    assert conv.op_type == "Conv"
    assert constant_of(conv.inputs[1]).shape == WEIGHT.shape
    expected = run_graph(make_proto(text, **CONSTANTS), X)
    np.testing.assert_array_equal(run_graph(model, X), expected)


def test_shape_arithmetic_of_a_static_input_folds(make_graph, make_proto, run_graph) -> None:
    text = """g (float[1,4,6,6] x) => (float[1,144] y) {
        n = Shape<start=0, end=1>(x)  s = Concat<axis=0>(n, rest)  y = Reshape(x, s) }"""
    model = make_graph(text, rest=np.array([-1]))
    assert [node.op_type for node in model.graph] == ["Reshape"]
    expected = run_graph(make_proto(text, rest=np.array([-1])), X)
    np.testing.assert_array_equal(run_graph(model, X), expected)


def test_shape_that_is_an_output_stays_right(make_graph, run_graph) -> None:
    model = make_graph(
        "g (float[1,4,6,6] x) => (int64[4] y, float[1,4,6,6] z) { y = Shape(x)  z = Relu(x) }"
    )
    assert run_graph(model, X).tolist() == [1, 4, 6, 6]


def test_ones_expanded_to_a_map_come_back_as_one_number(make_graph, run_graph) -> None:
    model = make_graph(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
            s = Shape(x)  ones = Expand(one, s)  minus = Neg(ones)
            g = GreaterOrEqual(x, zero)  y = Where(g, ones, minus) }""",
        one=1.0,
        zero=0.0,
    )
    where = next(node for node in model.graph if node.op_type == "Where")
    assert [constant_of(value).tolist() for value in where.inputs[1:]] == [1.0, -1.0]
    np.testing.assert_array_equal(run_graph(model, X), np.where(X >= 0, 1.0, -1.0))


def test_operands_that_give_a_where_its_shape_are_not_shrunk(
    make_graph, make_proto, run_graph
) -> None:
    text = """g (float[1,1,1,1] x) => (float[1,4,6,6] y) {
        ones = Expand(one, s)  minus = Neg(ones)
        g = GreaterOrEqual(x, zero)  y = Where(g, ones, minus) }"""
    constants = {"one": 1.0, "zero": 0.0, "s": np.array([1, 4, 6, 6])}
    x = np.full((1, 1, 1, 1), 2, np.float32)
    assert run_graph(make_graph(text, **constants), x).shape == (1, 4, 6, 6)


def test_a_constant_condition_that_gives_a_where_its_shape_is_not_shrunk(
    make_graph, run_graph
) -> None:
    model = make_graph(
        """g (float[1,1,1,1] x) => (float[1,4,6,6] y) {
            mask = Expand(yes, s)  h = Where(mask, x, zero)  y = Relu(h) }""",
        yes=np.array(True),
        zero=0.0,
        s=np.array([1, 4, 6, 6]),
    )
    assert run_graph(model, np.full((1, 1, 1, 1), 2, np.float32)).shape == (1, 4, 6, 6)


def test_cast_like_becomes_cast(make_graph, run_graph) -> None:
    model = make_graph(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
            g = Greater(x, zero)  y = CastLike(g, x) }""",
        zero=0.0,
    )
    assert [node.op_type for node in model.graph] == ["Greater", "Cast"]
    np.testing.assert_array_equal(run_graph(model, X), X > 0)


def test_a_random_tensor_is_not_frozen(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
            r = RandomNormal<shape=[1,4,6,6]>()  y = Add(x, r) }"""
    )
    assert [node.op_type for node in model.graph] == ["RandomNormal", "Add"]


def test_a_huge_expansion_is_left_in_the_graph(make_graph) -> None:
    side = int((LARGEST_FOLDED_BYTES / 4) ** 0.5) + 1
    model = make_graph(
        "g (float[1,1] x) => (y) { e = Expand(seed, s)  m = ReduceMax(e)  y = Add(x, m) }",
        seed=np.array([[1.0]]),
        s=np.array([side, side]),
    )
    assert "Expand" in [node.op_type for node in model.graph]


def test_a_chain_of_constants_is_folded_as_one(make_graph, run_graph) -> None:
    model = make_graph(
        "g (float[1,2] x) => (y) { c = Neg(w)  z = Mul(c, w)  d = Sub(x, x)  y = Add(d, z) }",
        w=np.array([[1.0, 2.0]]),
    )
    assert run_graph(model, np.ones((1, 2), np.float32)).tolist() == [[-1.0, -4.0]]


def test_nodes_with_sub_graphs_are_left_alone(run_graph, make_graph) -> None:
    model = make_graph(
        """g (float[1,2] x) => (float[1,2] y) {
            m = ReduceMax<keepdims=0>(x)  yes = Less(m, one)
            c = If (yes) <then_branch = t () => (float[1,2] a) { a = Identity(w) },
                          else_branch = e () => (float[1,2] b) { b = Neg(w) }>
            y = Add(x, c) }""",
        one=1.0,
        w=np.array([[1.0, 2.0]]),
    )
    assert "If" in [node.op_type for node in model.graph]
    assert run_graph(model, np.zeros((1, 2), np.float32)).tolist() == [[1.0, 2.0]]


def test_evaluate_computes_a_slice_for_an_input_of_any_size(make_graph) -> None:
    model = make_graph("g (float[1,4,6,6] x) => (y) { a = Neg(x)  b = Exp(a)  y = Sqrt(b) }")
    first, second, _ = model.graph
    points = np.array([[0.0, 1.0, 2.0]], np.float32)
    (result,) = evaluate(
        model, [first, second], [model.graph.inputs[0]], [second.outputs[0]], [points]
    )
    np.testing.assert_allclose(result, np.exp(-points), rtol=1e-6)


def test_an_input_is_no_constant(make_graph) -> None:
    model = make_graph("g (float[1,4] x) => (float[1,4] y) { y = Mul(x, w) }", w=np.arange(4.0))
    (multiply,) = model.graph
    assert constant_of(multiply.inputs[0]) is None
    assert constant_of(None) is None
    # A default that a caller may overrule is none either.
    model.graph.inputs.append(multiply.inputs[1])
    assert constant_of(multiply.inputs[1]) is None


FADED = {
    "a term of a sum": "s = Sign(x)  n = Sin(x)  m = Mul(n, zero)  y = Add(s, m)",
    "zero first": "s = Sign(x)  n = Sin(x)  m = Mul(zero, n)  y = Add(m, s)",
    "a difference": "s = Sign(x)  n = Sin(x)  m = Mul(n, zero)  y = Sub(s, m)",
    "reshaped before the sum": """
        s = Sign(x)  f = Reshape(x, rows)  n = Sin(f)  m = Mul(n, zero)  t = Mul(m, two)
        r = Reshape(m, back)  y = Add(s, r)""",
    "through a product of matrices": """
        s = Sign(x)  f = Reshape(x, rows)  m = Mul(f, zero)  p = MatMul(m, square)
        r = Reshape(p, back)  y = Add(s, r)""",
}


@pytest.mark.parametrize("form", FADED)
def test_a_term_times_zero_is_gone(form, make_graph, run_graph) -> None:
    model = make_graph(
        f"g (float[1,4,6,6] x) => (float[1,4,6,6] y) {{ {FADED[form]} }}",
        zero=0.0,
        two=2.0,
        rows=np.array([-1, 4]),
        back=np.array([1, 4, 6, 6]),
        square=np.ones((4, 4)),
    )
    assert [node.op_type for node in model.graph] == ["Sign"]
    np.testing.assert_array_equal(run_graph(model, X), np.sign(X))


def test_a_layer_times_zero_is_no_term_and_stays(make_graph) -> None:
    text = "m = Mul(x, zeros)  a = Add(m, one)  y = Relu(a)"
    model = make_graph(
        f"g (float[1,4,6,6] x) => (float[1,4,6,6] y) {{ {text} }}",
        zeros=np.zeros((1, 4, 1, 1)),
        one=1.0,
    )
    assert [node.op_type for node in model.graph] == ["Mul", "Add", "Relu"]


MAPS = {
    "Add(x, map)": (1, (1, 4, 1, 1)),
    "Add(map, x)": (0, (1, 4, 1, 1)),
    "Sub(x, map)": (1, (1, 4, 1, 1)),
    "Mul(x, map)": (1, (1, 4, 1, 1)),
    "Div(x, map)": (1, (1, 4, 1, 1)),
    "PRelu(x, map)": (1, (1, 4, 1, 1)),
    "Add(x, flat)": (1, (4, 1, 1)),
    "Add(x, spatial)": (1, (1, 1, 6, 6)),
    "Add(x, plane)": (1, (6, 6)),
}


@pytest.mark.parametrize("form", MAPS)
def test_a_number_per_channel_comes_back_from_a_whole_map(
    form, make_graph, make_proto, run_graph
) -> None:
    channels = np.arange(1.0, 5).reshape(4, 1, 1)
    constants = {
        "map": np.broadcast_to(channels, (1, 4, 6, 6)),
        "flat": np.broadcast_to(channels, (4, 6, 6)),
        "spatial": np.arange(36.0).reshape(1, 1, 6, 6),
        "plane": np.arange(36.0).reshape(6, 6),
    }
    text = f"g (float[1,4,6,6] x) => (float[1,4,6,6] y) {{ y = {form} }}"
    model = make_graph(text, **constants)
    (node,) = model.graph
    index, shape = MAPS[form]
    assert constant_of(node.inputs[index]).shape == shape
    np.testing.assert_array_equal(run_graph(model, X), run_graph(make_proto(text, **constants), X))


def test_a_map_that_gives_a_sum_its_size_is_not_shrunk(make_graph, run_graph) -> None:
    model = make_graph(
        "g (float[1,4,1,1] x) => (float[1,4,6,6] y) { y = Add(x, map) }", map=np.ones((1, 4, 6, 6))
    )
    assert run_graph(model, np.zeros((1, 4, 1, 1), np.float32)).shape == (1, 4, 6, 6)


BRANCHES = """
    p = If (yes) <then_branch = t () => (float[1,2] a) { h = Neg(w)  a = Mul(h, w) },
                  else_branch = e () => (float[1,2] b) { h = Exp(w)  b = Neg(h) }>
    q = If (no) <then_branch = t () => (float[1,2] a) { h = Neg(x)  a = Mul(h, w) },
                 else_branch = e () => (float[1,2] b) { h = Abs(x)  b = Sqrt(h) }>
    y = Add(p, q)"""


def test_the_branch_of_a_constant_condition_takes_the_place_of_the_if(
    make_graph, make_proto, run_graph
) -> None:
    text = f"g (float[1,2] x) => (float[1,2] y) {{ {BRANCHES} }}"
    constants = {"yes": np.array(True), "no": np.array(False), "w": np.array([[1.0, 2.0]])}
    model = make_graph(text, **constants)
    assert [node.op_type for node in model.graph] == ["Abs", "Sqrt", "Add"]
    x = np.array([[4.0, -9.0]], np.float32)
    np.testing.assert_array_equal(run_graph(model, x), run_graph(make_proto(text, **constants), x))
    assert run_graph(model, x).tolist() == [[1.0, -1.0]]


def test_a_constant_that_cannot_be_computed_is_named_with_its_shapes(make_graph) -> None:
    from bibench_deploy.errors import GraphError

    text = """g (float[1,4] x) => (float[1,4] y) {
        n = Neg(w)  bad = Add(n, v)  y = Mul(x, bad) }"""
    message = r'node "bad" \(Add\) cannot be computed from its inputs \[4\], \[3\]; .* again'
    with pytest.raises(GraphError, match=message):
        make_graph(text, w=np.ones(4), v=np.ones(3))


def test_constants_that_nothing_reads_are_no_error(make_graph) -> None:
    model = make_graph("g (float[1,4] x) => (y) { n = Neg(w)  y = Relu(x) }", w=np.ones(4))
    assert [node.op_type for node in model.graph] == ["Relu"]
