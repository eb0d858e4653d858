import numpy as np
import pytest

from bibench_deploy.graph.facts import (
    BinaryConvFacts,
    Granularity,
    binary_convs,
    state_facts,
    window_of,
)

RNG = np.random.default_rng(0)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
FLOAT = RNG.standard_normal((8, 4, 3, 3))
PER_CHANNEL = np.linspace(0.5, 2, 8)
NORM = {"gamma": np.ones(8), "beta": np.zeros(8), "mu": np.zeros(8), "var": np.ones(8)}
BATCH_NORM = "y = BatchNormalization({}, gamma, beta, mu, var)"


@pytest.fixture
def facts_of(make_graph):
    """facts_of(nodes, **initializers): of the only binary layer between x and y, or None."""

    def run(nodes: str, opset: int = 20, **arrays) -> BinaryConvFacts | None:
        text = f"g (float[1,4,7,9] x) => (y) {{ {nodes} }}"
        facts = state_facts(make_graph(text, opset=opset, **{"w": SIGNS, **arrays}))
        assert len(facts) < 2
        return facts[0] if facts else None

    return run


def test_the_facts_of_a_plain_layer(facts_of) -> None:
    assert facts_of(
        "s = Sign(x)  y = Conv<pads=[1,1,1,1], strides=[2,1]>(s, w)"
    ) == BinaryConvFacts(
        name="y",
        kind="conv",
        source="x",
        weight_shape=(8, 4, 3, 3),
        input_shape=(1, 4, 7, 9),
        output_shape=(1, 8, 4, 9),
        strides=(2, 1),
        pads=(1, 1, 1, 1),
        pad_value=0.0,
        dilations=(1, 1),
        group=1,
        zero_weights=0,
        threshold=0.0,
        at_threshold=0.0,
        scale=Granularity.NONE,
        scale_source=None,
        is_rescaled_by_activation=False,
        has_batch_norm=False,
        has_mean_shift=False,
        consumers=(),
    )


SCALES = {
    "none": ("y = Conv(s, w)", Granularity.NONE),
    "a factor of 1": ("c = Conv(s, w)  y = Mul(c, one)", Granularity.NONE),
    "one magnitude in the weight": ("y = Conv(s, half)", Granularity.TENSOR),
    "one magnitude in the activation": ("t = Mul(s, two)  y = Conv(t, w)", Granularity.TENSOR),
    "one factor": ("c = Conv(s, w)  y = Mul(two, c)", Granularity.TENSOR),
    "a divisor": ("c = Conv(s, w)  y = Div(c, two)", Granularity.TENSOR),
    "equal factors per channel": ("c = Conv(s, w)  y = Mul(c, twos)", Granularity.TENSOR),
    "magnitudes per channel": ("y = Conv(s, scaled)", Granularity.CHANNEL),
    "factors per channel": ("c = Conv(s, w)  y = Mul(c, alpha)", Granularity.CHANNEL),
    "factor per channel after a factor": (
        "c = Conv(s, w)  d = Mul(c, two)  y = Mul(d, alpha)", Granularity.CHANNEL),
    "per row": ("c = Conv(s, w)  y = Mul(c, rows)", Granularity.SPATIAL),
    "per channel and place": ("c = Conv(s, w)  y = Mul(c, gamma)", Granularity.SPATIAL),
    "per channel in the weight, per row behind": (
        "c = Conv(s, scaled)  y = Mul(c, rows)", Granularity.SPATIAL),
}  # fmt: skip


@pytest.mark.parametrize("form", SCALES)
def test_the_granularity_of_the_scale(form, facts_of) -> None:
    nodes, expected = SCALES[form]
    facts = facts_of(
        f"s = Sign(x)  {nodes}",
        one=1.0,
        two=2.0,
        half=SIGNS / 2,
        twos=np.full((8, 1, 1), 2.0),
        scaled=SIGNS * PER_CHANNEL.reshape(8, 1, 1, 1),
        alpha=PER_CHANNEL.reshape(8, 1, 1),
        rows=np.linspace(1, 2, 5).reshape(5, 1),
        gamma=RNG.uniform(1, 2, (8, 5, 7)),
    )
    assert facts.scale is expected
    assert facts.scale_source is None
    assert not facts.is_rescaled_by_activation


# XNOR-Net's K: one number per sample, or for each window by a box filter.
DYNAMIC = {
    "mean magnitude per sample": """
        a = Abs(x)  k = ReduceMean<keepdims=1>(a, axes)
        s = Sign(x)  c = Conv(s, w)  y = Mul(c, k)""",
    "the factor first": """
        a = Abs(x)  k = ReduceMean<keepdims=1>(a, axes)
        s = Sign(x)  c = Conv(s, w)  y = Mul(k, c)""",
    "box filter": """
        a = Abs(x)  m = ReduceMean<keepdims=1>(a, channel)  k = Conv(m, box)
        s = Sign(x)  c = Conv(s, w)  y = Mul(c, k)""",
    "after a factor per channel": """
        a = Abs(x)  k = ReduceMean<keepdims=1>(a, axes)
        s = Sign(x)  c = Conv(s, w)  d = Mul(c, alpha)  y = Mul(d, k)""",
    "times the sign, before the convolution": """
        a = Abs(x)  k = ReduceMean<keepdims=1>(a, axes)
        s = Sign(x)  t = Mul(k, s)  y = Conv(t, w)""",
    "of the tensor before a clip": """
        a = Abs(x)  k = ReduceMean<keepdims=1>(a, axes)
        h = Clip(x, low, high)  s = Sign(h)  c = Conv(s, w)  y = Mul(c, k)""",
    "of the tensor before a shift": """
        a = Abs(x)  k = ReduceMean<keepdims=1>(a, axes)
        h = Add(x, shift)  s = Sign(h)  c = Conv(s, w)  y = Mul(c, k)""",
}
DYNAMIC_CONSTANTS = {
    "axes": np.array([1, 2, 3]),
    "channel": np.array([1]),
    "box": np.full((1, 1, 3, 3), 1 / 9),
    "alpha": PER_CHANNEL.reshape(8, 1, 1),
    "low": -1.0,
    "high": 1.0,
    "shift": np.arange(1.0, 5).reshape(4, 1, 1),
}


@pytest.mark.parametrize("form", DYNAMIC)
def test_a_factor_computed_from_the_input_is_dynamic_rescaling(form, facts_of) -> None:
    facts = facts_of(DYNAMIC[form], **DYNAMIC_CONSTANTS)
    assert facts.scale is Granularity.DYNAMIC
    assert facts.scale_source == "k"
    assert facts.is_rescaled_by_activation


def test_a_box_filter_is_no_binary_layer_of_its_own(make_graph) -> None:
    text = f"g (float[1,4,7,9] x) => (y) {{ {DYNAMIC['box filter']} }}"
    model = make_graph(text, w=SIGNS, **DYNAMIC_CONSTANTS)
    assert [facts.name for facts in state_facts(model)] == ["c"]


def test_a_factor_from_elsewhere_is_dynamic_but_no_rescaling_by_the_activation(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,7,9] x, float[1,8,1,1] z) => (y) {
            s = Sign(x)  c = Conv(s, w)  k = Sigmoid(z)  y = Mul(c, k) }""",
        w=SIGNS,
    )
    (facts,) = state_facts(model)
    assert (facts.scale, facts.scale_source) == (Granularity.DYNAMIC, "k")
    assert not facts.is_rescaled_by_activation


def test_a_factor_that_only_one_of_two_readers_sees_is_no_scale(facts_of) -> None:
    facts = facts_of("s = Sign(x)  c = Conv(s, w)  d = Mul(c, two)  y = Add(c, d)", two=2.0)
    assert facts.scale is Granularity.NONE


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (BATCH_NORM.format("c"), True),
        ("d = Mul(c, alpha)  " + BATCH_NORM.format("d"), True),
        ("d = Add(c, alpha)  " + BATCH_NORM.format("d"), True),
        ("r = Relu(c)  " + BATCH_NORM.format("r"), False),
        ("r = Relu(c)  n = " + BATCH_NORM.format("c")[4:] + "  y = Add(r, n)", False),
    ],
)
def test_batch_norm_counts_where_the_scale_can_fold_into_it(nodes, expected, facts_of) -> None:
    arrays = {"alpha": PER_CHANNEL.reshape(8, 1, 1), **NORM}
    assert facts_of(f"s = Sign(x)  c = Conv(s, w)  {nodes}", **arrays).has_batch_norm is expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("s = Sign(x)", False),
        ("h = Add(x, shift)  s = Sign(h)", True),
        ("h = Sub(x, shift)  s = Sign(h)", True),
        ("r = Relu(x)  h = Add(x, r)  s = Sign(h)", False),
    ],
)
def test_a_constant_added_before_the_sign_is_a_mean_shift(nodes, expected, facts_of) -> None:
    facts = facts_of(f"{nodes}  y = Conv(s, w)", shift=np.arange(4.0).reshape(4, 1, 1))
    assert facts.has_mean_shift is expected


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_pad_node_counts_as_padding_with_its_value(value, facts_of) -> None:
    facts = facts_of(
        "s = Sign(x)  p = Pad(s, amounts, filler)  y = Conv(p, w)",
        amounts=np.array([0, 0, 1, 2, 0, 0, 3, 4]),
        filler=value,
    )
    assert (facts.pads, facts.pad_value) == ((1, 2, 3, 4), value)
    assert (facts.input_shape, facts.source) == ((1, 4, 7, 9), "x")


@pytest.mark.parametrize(("value", "pads"), [(0.0, (1, 3, 3, 5)), (1.0, None)])
def test_two_paddings_add_up_only_where_both_pad_with_zero(value, pads, facts_of) -> None:
    facts = facts_of(
        "s = Sign(x)  p = Pad(s, amounts, filler)  y = Conv<pads=[0,1,0,1]>(p, w)",
        amounts=np.array([0, 0, 1, 2, 0, 0, 3, 4]),
        filler=value,
    )
    assert (None if facts is None else facts.pads) == pads


def test_a_pad_without_a_value_pads_with_zero(facts_of) -> None:
    facts = facts_of(
        "s = Sign(x)  p = Pad(s, amounts)  y = Conv(p, w)",
        amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    )
    assert (facts.pads, facts.pad_value) == ((1, 1, 1, 1), 0)


@pytest.mark.parametrize(
    "pad",
    [
        'Pad<mode="reflect">(s, amounts)',
        "Pad(s, channels)",
        "Pad(s, cut)",
    ],
)
def test_other_pads_hide_the_sign(pad, facts_of) -> None:
    weight = SIGNS if "channels" not in pad else np.concatenate([SIGNS, SIGNS], axis=1)
    facts = facts_of(
        f"s = Sign(x)  p = {pad}  y = Conv(p, w)",
        amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        channels=np.array([0, 4, 0, 0, 0, 0, 0, 0]),
        cut=np.array([0, 0, 1, 1, 0, 0, -1, 1]),
        w=weight,
    )
    assert facts is None


def test_a_pad_of_named_axes_is_the_convolutions_own(facts_of) -> None:
    facts = facts_of(
        "s = Sign(x)  p = Pad(s, four, , height_width)  y = Conv(p, w)",
        four=np.array([1, 2, 3, 4]),
        height_width=np.array([2, -1]),
    )
    assert (facts.pads, facts.pad_value) == ((1, 2, 3, 4), 0)


def test_a_pad_before_a_one_dimensional_convolution_is_its_own(make_graph) -> None:
    model = make_graph(
        "g (float[1,4,9] x) => (y) { s = Sign(x)  p = Pad(s, amounts)  y = Conv(p, w) }",
        w=SIGNS[:, :, 0],
        amounts=np.array([0, 0, 1, 0, 0, 2]),
    )
    (facts,) = state_facts(model)
    assert facts.pads == (0, 1, 0, 2)


@pytest.mark.parametrize(
    ("auto_pad", "pads"),
    [("SAME_UPPER", (1, 0, 1, 1)), ("SAME_LOWER", (1, 1, 1, 0)), ("VALID", (0, 0, 0, 0))],
)
def test_auto_pad_is_resolved_to_numbers(auto_pad, pads, make_graph, run_graph) -> None:
    text = "g (float[1,4,7,8] x) => (y) {{ s = Sign(x)  y = Conv<{}, strides=[2,2]>(s, w) }}"
    model = make_graph(text.format(f'auto_pad="{auto_pad}"'), w=SIGNS)
    (facts,) = state_facts(model)
    assert facts.pads == pads
    explicit = make_graph(text.format(f"pads=[{','.join(map(str, pads))}]"), w=SIGNS)
    x = RNG.standard_normal((1, 4, 7, 8)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(model, x), run_graph(explicit, x))


def test_groups_and_dilation_are_told(facts_of) -> None:
    facts = facts_of("s = Sign(x)  y = Conv<group=2, dilations=[2,3]>(s, w)", w=SIGNS[:, :2])
    assert (facts.group, facts.dilations, facts.weight_shape) == (2, (2, 3), (8, 2, 3, 3))
    assert facts.output_shape == (1, 8, 3, 3)


def test_a_one_dimensional_convolution_is_a_row(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,9] x) => (y) {
            s = Sign(x)  y = Conv<pads=[1,2], strides=[2], dilations=[2]>(s, w) }""",
        w=SIGNS[:, :, 0],
    )
    (facts,) = state_facts(model)
    assert (facts.strides, facts.pads, facts.dilations) == ((1, 2), (0, 1, 0, 2), (1, 2))


LINEAR = np.where(RNG.standard_normal((3, 6)) >= 0, 1.0, -1.0) * [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    "product",
    ["Gemm<transB=1>(s, w)", "Gemm(s, wt)", "MatMul(s, wt)", "Gemm<transB=1>(s, w, b)"],
)
def test_a_linear_layer_is_found_in_any_form(product, make_graph) -> None:
    text = f"g (float[1,6] x) => (y) {{ s = Sign(x)  y = {product} }}"
    (conv,) = binary_convs(make_graph(text, w=LINEAR, wt=LINEAR.T, b=[1.0, 2.0, 3.0]))
    assert conv.facts.kind == "linear"
    assert (conv.facts.weight_shape, conv.facts.output_shape) == ((3, 6), (1, 3))
    np.testing.assert_array_equal(conv.weight, np.sign(LINEAR))
    np.testing.assert_array_equal(conv.magnitude, [1, 2, 3])


@pytest.mark.parametrize("attribute", ["alpha=2.0", "beta=2.0"])
def test_a_product_with_factors_of_its_own_is_not_taken_for_a_plain_one(
    attribute, make_graph
) -> None:
    text = f"g (float[1,6] x) => (y) {{ s = Sign(x)  y = Gemm<transB=1, {attribute}>(s, w, b) }}"
    assert binary_convs(make_graph(text, w=LINEAR, b=[1.0, 2.0, 3.0])) == []


def test_a_bias_that_is_computed_is_not_taken_for_a_constant(make_graph) -> None:
    model = make_graph(
        "g (float[1,4,7,9] x, float[8] z) => (y) { s = Sign(x)  b = Neg(z)  y = Conv(s, w, b) }",
        w=SIGNS,
    )
    assert binary_convs(model) == []


def test_a_product_of_two_inputs_is_no_binary_layer(make_graph) -> None:
    model = make_graph(
        "g (float[1,6] x, float[6,3] z) => (y) { s = Sign(x)  t = Sign(z)  y = MatMul(s, t) }"
    )
    assert binary_convs(model) == []


@pytest.mark.parametrize("nodes", ["y = Conv(x, w)", "s = Sign(x)  y = Conv(s, f)"])
def test_a_layer_is_binary_only_if_both_sides_are(nodes, facts_of) -> None:
    assert facts_of(nodes, f=FLOAT) is None


def test_a_mean_filter_over_a_float_map_is_no_binary_layer(facts_of) -> None:
    mean = np.full((4, 1, 3, 3), 1 / 9)
    assert facts_of("y = Conv<group=4>(x, w)", w=mean) is None
    assert facts_of("s = Sign(x)  y = Conv<group=4>(s, w)", w=mean) is not None


def test_where_activations_are_zero_or_one_padding_with_zero_is_minus_one(facts_of) -> None:
    nodes = "g = Greater(x, zero)  s = Cast<to=1>(g)  y = Conv<pads=[1,1,1,1]>(s, w)"
    facts = facts_of(nodes, zero=0.0)
    assert (facts.pad_value, facts.at_threshold) == (-1, -1)


def test_a_padding_that_is_neither_level_nor_zero_hides_the_sign(facts_of) -> None:
    nodes = "s = Sign(x)  p = Pad(s, amounts, two)  y = Conv(p, w)"
    assert facts_of(nodes, amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]), two=2.0) is None


def test_activations_that_fall_turn_the_weights(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,7,9] x) => (y) {
            n = Less(x, zero)  s = Where(n, one, minus)  y = Conv(s, w) }""",
        w=SIGNS,
        zero=0.0,
        one=1.0,
        minus=-1.0,
    )
    (conv,) = binary_convs(model)
    np.testing.assert_array_equal(conv.weight, -SIGNS)
    assert conv.facts.at_threshold == 1


@pytest.mark.parametrize(
    ("mover", "moved"),
    [
        ("Flatten(s)", (1, 252)),
        ("Reshape(s, flat)", (1, 252)),
        ("Transpose<perm=[0,3,1,2]>(s)", (1, 9, 4, 7)),
    ],
)
def test_what_only_moves_numbers_may_come_between_sign_and_layer(mover, moved, make_graph) -> None:
    product = "MatMul(m, rows)" if len(moved) == 2 else "Conv(m, across)"
    model = make_graph(
        f"g (float[1,4,7,9] x) => (y) {{ s = Sign(x)  m = {mover}  y = {product} }}",
        flat=np.array([1, -1]),
        rows=np.where(RNG.standard_normal((252, 3)) >= 0, 1.0, -1.0),
        across=np.where(RNG.standard_normal((2, 9, 3, 3)) >= 0, 1.0, -1.0),
    )
    (conv,) = binary_convs(model)
    assert conv.facts.input_shape == moved
    assert (conv.facts.source, len(conv.layout)) == ("x", 1)


def test_consumers_are_those_behind_scale_and_batch_norm(facts_of) -> None:
    facts = facts_of(
        "s = Sign(x)  c = Conv(s, w)  d = Mul(c, alpha)"
        "  n = BatchNormalization(d, gamma, beta, mu, var)  r = Relu(n)  y = Add(n, r)",
        alpha=PER_CHANNEL.reshape(8, 1, 1),
        **NORM,
    )
    assert sorted(facts.consumers) == ["Add", "Relu"]


def test_a_threshold_beside_zero_is_a_fact(facts_of) -> None:
    facts = facts_of(
        "g = GreaterOrEqual(x, t)  s = Where(g, two, less)  y = Conv(s, w)",
        t=0.25,
        two=2.0,
        less=-2.0,
    )
    assert (facts.threshold, facts.at_threshold, facts.scale) == (0.25, 1, Granularity.TENSOR)


def test_layers_are_told_in_graph_order(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,7,9] x) => (y) {
            s = Sign(x)  [b] p = Conv(s, w)  t = Sign(p)  [a] y = Conv(t, v)
        }""",
        w=SIGNS,
        v=np.concatenate([SIGNS, SIGNS], axis=1),
    )
    assert [facts.name for facts in state_facts(model)] == ["b", "a"]


def test_a_pooling_window_is_read_with_its_defaults(make_graph) -> None:
    model = make_graph("g (float[1,4,7,9] x) => (y) { y = MaxPool<kernel_shape=[3,2]>(x) }")
    window = window_of(next(iter(model.graph)))
    assert (window.kernel, window.strides, window.pads, window.dilations) == (
        (3, 2), (1, 1), (0, 0, 0, 0), (1, 1),
    )  # fmt: skip


def test_zeros_beside_the_features_are_no_padding_of_a_linear_layer(make_graph) -> None:
    model = make_graph(
        """g (float[1,3,4] x) => (y) { s = Sign(x)  p = Pad(s, amounts)  y = MatMul(p, w) }""",
        amounts=np.array([0, 0, 1, 0, 0, 1]),
        w=np.ones((6, 2)) * [-1, 1],
    )
    assert state_facts(model) == ()
