import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bibench_deploy.graph.binarization import (
    Binarization,
    binary_weight,
    find_binarization,
    is_always_one_value,
)

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "minus": -1.0, "two": 2.0, "half": 0.5, "hundredth": 0.01,
    "big": 10000.0, "five": 5.0,
}  # fmt: skip

# Name: (graph from x to y, what exactly 0 becomes).
SIGNS = {
    "sign": ("y = Sign(x)", 0.0),
    "x >= 0": ("g = GreaterOrEqual(x, zero)  y = Where(g, one, minus)", 1.0),
    "x < 0": ("l = Less(x, zero)  y = Where(l, minus, one)", 1.0),
    "0 <= x": ("g = LessOrEqual(zero, x)  y = Where(g, one, minus)", 1.0),
    "x > 0": ("g = Greater(x, zero)  y = Where(g, one, minus)", -1.0),
    "not x < 0": ("l = Less(x, zero)  n = Not(l)  y = Where(n, one, minus)", 1.0),
    "cast, times two, minus one": (
        "g = Greater(x, zero)  f = Cast<to=1>(g)  t = Mul(f, two)  y = Sub(t, one)", -1.0),
    "cast of x >= 0": (
        "g = GreaterOrEqual(x, zero)  f = Cast<to=1>(g)  t = Mul(two, f)  y = Add(t, minus)", 1.0),
    "sign - clip + clip": (
        "s = Sign(x)  c = Clip(x, minus, one)  d = Sub(s, c)  y = Add(d, c)", 0.0),
    "clip + (sign - clip)": (
        "s = Sign(x)  c = Clip(x, minus, one)  d = Sub(s, c)  y = Add(c, d)", 0.0),
    "clip before sign, then sign - clip + clip": (
        "c = Clip(x, minus, one)  s = Sign(c)  d = Sub(s, c)  y = Add(d, c)", 0.0),
    "sign, equal, where": (
        "s = Sign(x)  e = Equal(s, zero)  y = Where(e, one, s)", 1.0),
    "piecewise polynomial": ("""
        s = Sign(x)
        b1 = Less(x, minus)  m1 = Cast<to=1>(b1)  k1 = Sub(one, m1)
        b2 = Less(x, zero)   m2 = Cast<to=1>(b2)  k2 = Sub(one, m2)
        b3 = Less(x, one)    m3 = Cast<to=1>(b3)  k3 = Sub(one, m3)
        q = Mul(x, x)  t = Mul(x, two)  up = Add(q, t)  n = Neg(q)  down = Add(n, t)
        a1 = Mul(minus, m1)  c1 = Mul(up, k1)  o1 = Add(a1, c1)
        a2 = Mul(o1, m2)  c2 = Mul(down, k2)  o2 = Add(a2, c2)
        a3 = Mul(o2, m3)  c3 = Mul(one, k3)  o3 = Add(a3, c3)
        d = Sub(s, o3)  y = Add(d, o3)""", 0.0),
}  # fmt: skip


@pytest.fixture
def find(make_graph):
    """find(nodes from x to y, **constants): what is found for y of a four-channel map."""

    def run(nodes: str, **constants: object) -> Binarization | None:
        text = f"g (float[1,4,3,3] x) => (float[1,4,3,3] y) {{ {nodes} }}"
        model = make_graph(text, **{**CONSTANTS, **constants})
        found = find_binarization(model, model.graph.outputs[0])
        if found is not None:
            assert found.result is model.graph.outputs[0]
        return found

    return run


@pytest.mark.parametrize("form", SIGNS)
def test_a_sign_is_recognised_by_what_it_computes(form, find) -> None:
    nodes, at_zero = SIGNS[form]
    found = find(nodes)
    assert found is not None
    assert (found.low, found.high, found.threshold, found.at_threshold) == (-1, 1, 0, at_zero)
    assert found.is_sign
    assert found.source.name == ("c" if form.startswith("clip before sign") else "x")


def test_the_shortest_slice_is_the_binarization(find) -> None:
    found = find("c = Clip(x, minus, one)  s = Sign(c)  y = Mul(s, two)")
    assert found is not None
    assert found.source.name == "c"
    assert [node.op_type for node in found.nodes] == ["Sign", "Mul"]
    assert (found.low, found.high, found.is_sign) == (-2, 2, True)


# None of them is a step of two values nearer to the end than x.
FROM_THE_FAR_END = {
    "sign of a shifted sign": ("s = Sign(x)  h = Add(s, hundredth)  y = Sign(h)", 1.0),
    "shifted down": ("s = Sign(x)  h = Sub(s, hundredth)  y = Sign(h)", -1.0),
    "sign, equal, where": ("s = Sign(x)  e = Equal(s, zero)  y = Where(e, one, s)", 1.0),
    "clip of a steep sum": (
        "s = Sign(x)  h = Add(s, half)  m = Mul(h, five)  y = Clip(m, minus, one)", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("form", FROM_THE_FAR_END)
def test_a_third_value_is_taken_only_where_going_further_gives_none(form, find) -> None:
    nodes, at_zero = FROM_THE_FAR_END[form]
    found = find(nodes)
    assert found is not None
    assert (found.source.name, found.is_sign, found.at_threshold) == ("x", True, at_zero)


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Tanh(x)  y = Sign(h)",
        "c = Clip(x, minus, one)  d = Div(c, half)  h = Clip(d, minus, one)  y = Sign(h)",
    ],
)
def test_what_comes_before_a_sign_is_no_part_of_it(nodes, find) -> None:
    found = find(nodes)
    assert found is not None
    assert (found.source.name, found.is_sign) == ("h", True)


def test_the_slice_is_in_the_order_in_which_it_runs(find) -> None:
    nodes, _ = SIGNS["piecewise polynomial"]
    found = find(nodes)
    assert found is not None
    seen = {found.source}
    for node in found.nodes:
        assert all(value in seen or value.const_value is not None for value in node.inputs)
        seen.update(node.outputs)


NO_SIGNS = {
    "clip alone": "y = Clip(x, minus, one)",
    "round": "y = Round(x)",
    "steep tanh": "m = Mul(x, five)  y = Tanh(m)",
    "very steep clip": "m = Mul(x, big)  y = Clip(m, minus, one)",
    "relu": "y = Relu(x)",
    "identity": "y = Mul(x, five)",
    "constant": "z = Mul(x, zero)  y = Add(z, one)",
    "two steps": (
        "a = Greater(x, half)  b = Less(x, minus)  c = Where(b, minus, zero)  y = Where(a, one, c)"
    ),
    "two steps close together": (
        "a = Greater(x, p60)  b = Greater(x, p65)  c = Where(b, one, zero)  y = Where(a, c, minus)"
    ),
    "two steps on either side of 0.5": (
        "a = Greater(x, p45)  b = Greater(x, p55)  c = Where(b, one, zero)  y = Where(a, c, minus)"
    ),
    "a bump": "a = Greater(x, half)  b = Less(x, minus)  g = Or(a, b)  y = Where(g, one, minus)",
    "two bits": "m = Mul(x, two)  r = Round(m)  c = Clip(r, minus, two)  y = Mul(c, half)",
    "magnitude": "y = Abs(x)",
    "exp is no operator of a binarization": "s = Sign(x)  y = Exp(s)",
}


@pytest.mark.parametrize("form", NO_SIGNS)
def test_what_takes_other_than_two_values_is_no_binarization(form, find) -> None:
    assert find(NO_SIGNS[form], p45=0.45, p55=0.55, p60=0.6, p65=0.65) is None


def test_a_product_of_two_inputs_is_no_binarization(make_graph) -> None:
    model = make_graph(
        "g (float[1,4] x, float[1,4] z) => (y) { a = Sign(x)  b = Sign(z)  y = Mul(a, b) }"
    )
    assert find_binarization(model, model.graph.outputs[0]) is None


def test_two_functions_of_one_tensor_are_followed_to_that_tensor(make_graph) -> None:
    model = make_graph(
        """g (float[1,4] x) => (float[1,4] y) {
            h = Relu(x)  s = Sign(h)  c = Clip(h, minus, one)  d = Sub(s, c)  y = Add(d, c) }""",
        minus=-1.0,
        one=1.0,
    )
    found = find_binarization(model, model.graph.outputs[0])
    assert found is not None
    assert found.source.name == "h"


def test_a_shift_per_channel_is_no_part_of_the_slice(find) -> None:
    found = find("h = Add(x, shift)  y = Sign(h)", shift=np.arange(4.0).reshape(1, 4, 1, 1))
    assert found is not None
    assert found.source.name == "h"


def test_choices_written_as_full_tensors_are_recognised(find) -> None:
    ones = np.ones((1, 4, 3, 3), np.float32)
    found = find("g = GreaterOrEqual(x, zero)  y = Where(g, ones, less)", ones=ones, less=-ones)
    assert found is not None
    assert found.is_sign


def test_choices_that_differ_by_channel_are_no_binarization(find) -> None:
    rows = np.arange(1.0, 5).reshape(1, 4, 1, 1)
    assert (
        find("g = GreaterOrEqual(x, zero)  y = Where(g, rows, less)", rows=rows, less=-rows) is None
    )


@pytest.mark.parametrize("dtype", [10, 11])
def test_a_sign_in_other_precision_is_not_taken_for_float32(find, dtype) -> None:
    found = find(f"h = Cast<to={dtype}>(x)  s = Sign(h)  y = Cast<to=1>(s)")
    assert found is None or found.source.name == "x"


def test_falling_steps_are_found_but_are_no_sign(find) -> None:
    found = find("s = Sign(x)  y = Neg(s)")
    assert found is not None
    assert (found.low, found.high, found.is_sign) == (1, -1, False)


def test_zero_and_one_are_two_values_but_no_sign(find) -> None:
    found = find("g = Greater(x, zero)  y = Cast<to=1>(g)")
    assert found is not None
    assert (found.low, found.high, found.is_sign) == (0, 1, False)


ROUNDING = ("a = Add(x, one)  h = Mul(a, half)  c = Clip(h, zero, one)  r = Round(c)"
            "  t = Mul(r, two)  y = Sub(t, one)")  # fmt: skip


def test_rounding_has_its_step_above_a_half(find) -> None:
    found = find(ROUNDING)
    assert found is not None
    # The clip leaves 0 to 1, in which rounding has one step.
    above_half = np.nextafter(np.float32(0.5), np.float32(1))
    assert (found.source.name, found.threshold) == ("c", above_half)
    assert not found.is_sign


WIDEST = {
    # Half of 1 + 2^-24 rounds to a half, and that to even, which is 0.
    "rounding": (ROUNDING, "x", float(np.nextafter(np.float32(2**-24), np.float32(1)))),
    "temperature": (
        "c = Clip(x, minus, one)  d = Div(c, hundredth)  e = Clip(d, minus, one)  y = Sign(e)",
        "x", 0.0),
    "tanh": ("h = Tanh(x)  y = Sign(h)", "x", 0.0),
    "comparison of a shifted number": (
        "h = Sub(x, half)  g = GreaterOrEqual(h, zero)  y = Where(g, one, minus)", "x", 0.5),
    "a shift per channel": ("h = Add(x, shift)  d = Div(h, two)  y = Sign(d)", "h", 0.0),
}  # fmt: skip


@pytest.mark.parametrize("form", WIDEST)
def test_the_widest_slice_takes_in_what_stands_before_the_step(form, make_graph) -> None:
    nodes, source, threshold = WIDEST[form]
    model = make_graph(
        f"g (float[1,4,3,3] x) => (float[1,4,3,3] y) {{ {nodes} }}",
        **CONSTANTS,
        shift=np.arange(4.0).reshape(1, 4, 1, 1),
    )
    found = find_binarization(model, model.graph.outputs[0], widest_for=set())
    assert found is not None
    assert (found.source.name, found.threshold) == (source, pytest.approx(threshold, rel=1e-9))
    assert (found.low, found.high) == (-1, 1)


RANGES = {
    "sign of what is never negative": ("h = Relu(x)  y = Sign(h)", (0, 1, 0, 0)),
    "sign of what is never positive": ("h = Clip(x, minus, zero)  y = Sign(h)", (-1, 0, 0, 0)),
    "through a pooling": (
        "r = Relu(x)  h = MaxPool<kernel_shape=[1,1]>(r)  y = Sign(h)", (0, 1, 0, 0)),
    "sign of a sigmoid above a half": (
        "h = Sigmoid(x)  g = Greater(h, half)  y = Where(g, one, minus)",
        (-1, 1, np.nextafter(np.float32(0.5), np.float32(1)), 1)),
    "two steps, one out of reach": (
        "h = Relu(x)  m = Neg(one)  s = Sign(h)  t = Add(h, half)  u = Sign(t)  y = Add(s, u)",
        (1, 2, 0, 1)),
    "straight-through arithmetic behind a ReLU": (
        "h = Relu(x)  s = Sign(h)  c = Clip(h, minus, one)  d = Sub(s, c)  y = Add(d, c)",
        (0, 1, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("form", RANGES)
def test_only_numbers_that_can_be_there_count(form, find) -> None:
    nodes, expected = RANGES[form]
    found = find(nodes)
    assert found is not None
    assert found.source.name == "h"
    assert (found.low, found.high, found.threshold, found.at_threshold) == expected


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Relu(x)  g = GreaterOrEqual(h, zero)  y = Where(g, one, minus)",
        "h = Sigmoid(x)  g = GreaterOrEqual(h, zero)  y = Where(g, one, minus)",
        "h = Sigmoid(x)  g = Greater(h, two)  y = Where(g, one, minus)",
        "h = Clip(x, zero, one)  t = Add(h, half)  y = Sign(t)",
    ],
)
def test_what_is_always_true_is_no_binarization(nodes, find) -> None:
    assert find(nodes) is None


FAR = {
    "x >= t": ("g = GreaterOrEqual(x, t)  y = Where(g, one, minus)", 1.0, 1.0),
    "x < t": ("g = Less(x, t)  y = Where(g, one, minus)", -1.0, -1.0),
    "behind a ReLU": (
        "r = Relu(x)  g = GreaterOrEqual(r, t)  y = Where(g, one, minus)", 1.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("threshold", [20000.0, 1e9, 2.0**100, 1e38])
@pytest.mark.parametrize("form", FAR)
def test_a_step_is_found_however_far_out_it_is(form, threshold, find) -> None:
    nodes, high, at_threshold = FAR[form]
    found = find(nodes, t=threshold)
    assert found is not None
    assert (found.threshold, found.high, found.at_threshold) == (
        np.float32(threshold), high, at_threshold,
    )  # fmt: skip


def test_the_widest_slice_ends_where_something_else_reads_a_part_of_it(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,3,3] x) => (float[1,4,3,3] y, float[1,4,3,3] z) {
            d = Div(x, two)  h = Tanh(d)  y = Sign(h)  z = Neg(h) }""",
        **CONSTANTS,
    )
    sign, other = (value.producer() for value in model.graph.outputs)
    found = find_binarization(model, sign.outputs[0], widest_for=set())
    assert found is not None
    assert found.source.name == "h"
    found = find_binarization(model, sign.outputs[0], widest_for={other})
    assert found is not None
    assert found.source.name == "x"


def test_a_step_far_below_zero_is_found(find) -> None:
    found = find("g = GreaterOrEqual(x, t)  y = Where(g, one, minus)", t=-30000.0)
    assert found is not None
    assert found.threshold == -30000


def test_a_step_far_out_that_no_constant_shows_is_found(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,3,3] x) => (float[1,4,3,3] y) {
            m = Mul(x, hundredth)  g = GreaterOrEqual(m, t)  y = Where(g, one, minus) }""",
        **CONSTANTS,
        t=3e5,
    )
    found = find_binarization(model, model.graph.outputs[0], widest_for=set())
    assert found is not None
    assert found.source.name == "x"
    assert found.threshold == pytest.approx(3e7, rel=1e-6)


def test_a_window_whose_far_end_is_far_out_is_no_step(find) -> None:
    nodes = "a = Greater(x, zero)  b = Less(x, t)  g = And(a, b)  y = Where(g, one, minus)"
    assert find(nodes, t=20000.0) is None
    assert find(nodes, t=1e30) is None


@pytest.mark.parametrize(
    ("nodes", "is_constant"),
    [
        ("r = Relu(x)  g = GreaterOrEqual(r, zero)  y = Where(g, one, minus)", True),
        ("r = Relu(x)  g = GreaterOrEqual(r, t)  y = Where(g, one, minus)", False),
    ],
)
def test_only_what_is_one_number_everywhere_is_called_so(nodes, is_constant, make_graph) -> None:
    model = make_graph(
        f"g (float[1,4,3,3] x) => (float[1,4,3,3] y) {{ {nodes} }}", **CONSTANTS, t=20000.0
    )
    assert is_always_one_value(model, model.graph.outputs[0]) is is_constant


# a · sign(x) with straight-through arithmetic, which rounds.
@pytest.mark.parametrize("scale", [0.05, 0.3, 0.7071, 3.3])
@pytest.mark.parametrize(
    "nodes",
    [
        "s = Sign(x)  m = Mul(s, a)  c = Clip(x, minus, one)  d = Sub(m, c)  y = Add(d, c)",
        "s = Sign(x)  m = Mul(s, a)  c = Clip(x, minus, one)  d = Sub(m, c)  y = Add(c, d)",
        "s = Sign(x)  m = Mul(s, a)  c = Tanh(x)  d = Sub(m, c)  y = Add(c, d)",
        "g = GreaterOrEqual(x, zero)  s = Where(g, a, b)  d = Sub(s, x)  y = Add(d, x)",
    ],
)
def test_levels_that_differ_by_rounding_are_one_level(nodes, scale, find) -> None:
    found = find(nodes, a=scale, b=-scale)
    assert found is not None
    assert (found.low, found.high, found.threshold) == (
        pytest.approx(-scale, rel=1e-5),
        pytest.approx(scale, rel=1e-5),
        0,
    )
    assert found.at_threshold in (0, found.high)


def test_levels_farther_apart_than_rounding_are_two(find) -> None:
    nodes = "s = Sign(x)  c = Clip(x, minus, one)  m = Mul(c, small)  y = Add(s, m)"
    assert find(nodes, small=1e-5) is None
    assert find(nodes, small=0.01) is None


def test_a_slice_known_from_another_layer_is_not_run_again(find, monkeypatch) -> None:
    from bibench_deploy.graph import binarization

    nodes = "g = GreaterOrEqual(x, t)  y = Where(g, one, minus)"
    first = find(nodes, t=0.71875)
    monkeypatch.setattr(binarization, "evaluate", None)
    again, other = find(nodes.replace("g ", "other ").replace("(g,", "(other,"), t=0.71875), 0.5
    assert first is not None
    assert again is not None
    assert (again.threshold, again.low) == (first.threshold, first.low) == (0.71875, -1)
    with pytest.raises(TypeError):
        find(nodes, t=other + 0.2)


def test_a_constant_of_one_number_many_times_is_that_number(find) -> None:
    found = find(
        "h = Sub(x, t)  g = GreaterOrEqual(h, z)  y = Where(g, one, minus)",
        z=np.zeros((1, 4, 1, 1)),
        t=np.arange(4.0).reshape(1, 4, 1, 1),
    )
    assert found is not None
    assert (found.source.name, found.is_sign) == ("h", True)


def test_a_slice_that_enlarges_its_source_is_no_binarization(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,1,1] x) => (float[1,4,3,3] y) {
            g = GreaterOrEqual(x, zeros)  y = Where(g, one, minus) }""",
        zeros=np.zeros((1, 4, 3, 3)),
        one=1.0,
        minus=-1.0,
    )
    assert find_binarization(model, model.graph.outputs[0]) is None


@settings(max_examples=25, deadline=None)
@given(
    threshold=st.floats(-500, 500, width=32).filter(lambda number: abs(number) > 1e-30),
    low=st.sampled_from([-1.0, -0.25]),
)
def test_any_threshold_is_found_to_the_last_bit(make_graph, threshold, low) -> None:
    model = make_graph(
        "g (float[1,4] x) => (float[1,4] y) { g = GreaterOrEqual(x, t)  y = Where(g, high, low) }",
        t=threshold,
        low=low,
        high=-low,
    )
    found = find_binarization(model, model.graph.outputs[0])
    assert found is not None
    assert (found.threshold, found.at_threshold) == (threshold, -low)
    assert not found.is_sign


@pytest.mark.parametrize("threshold", [0.3, -7.3])
def test_the_step_of_a_strict_comparison_is_the_next_number(make_graph, threshold) -> None:
    model = make_graph(
        "g (float[1,4] x) => (float[1,4] y) { g = Greater(x, t)  y = Where(g, one, minus) }",
        t=threshold,
        one=1.0,
        minus=-1.0,
    )
    found = find_binarization(model, model.graph.outputs[0])
    assert found is not None
    assert found.threshold == np.nextafter(np.float32(threshold), np.float32(np.inf))
    assert found.at_threshold == 1


@pytest.mark.parametrize("threshold", [0.5, 0.3, -7.3])
def test_a_third_value_on_the_threshold_is_told(make_graph, threshold) -> None:
    model = make_graph(
        """g (float[1,4] x) => (float[1,4] y) {
            g = Greater(x, t)  e = Equal(x, t)
            h = Where(e, zero, minus)  y = Where(g, one, h) }""",
        t=threshold,
        zero=0.0,
        one=1.0,
        minus=-1.0,
    )
    found = find_binarization(model, model.graph.outputs[0])
    assert found is not None
    assert (found.threshold, found.at_threshold) == (np.float32(threshold), 0)


signs_of = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=5),
    elements=st.sampled_from([-1.0, 1.0]),
)
magnitudes = st.floats(2.0**-100, 2.0**100, width=32)


@given(signs=signs_of, data=st.data(), axis=st.sampled_from([0, 1]))
def test_signs_times_one_magnitude_per_channel_come_apart_again(signs, data, axis) -> None:
    scale = np.array(
        data.draw(st.lists(magnitudes, min_size=signs.shape[axis], max_size=signs.shape[axis])),
        np.float32,
    )
    shape = [1] * signs.ndim
    shape[axis] = -1
    parts = binary_weight(signs * scale.reshape(shape), axis)
    assert parts is not None
    np.testing.assert_array_equal(parts[0], signs)
    np.testing.assert_array_equal(parts[1], scale)


@given(signs=signs_of, data=st.data(), other=st.sampled_from([2.0, np.nan, np.inf]))
def test_one_other_element_makes_a_weight_float(signs, data, other) -> None:
    weight = signs.copy()
    weight[tuple(data.draw(st.integers(0, side - 1)) for side in signs.shape)] = other
    assert binary_weight(weight) is None


@given(signs=signs_of, data=st.data(), scale=magnitudes)
def test_zeros_stay_zeros_beside_one_magnitude(signs, data, scale) -> None:
    expected = signs.copy()
    expected[tuple(data.draw(st.integers(0, side - 1)) for side in signs.shape)] = 0
    parts = binary_weight(expected * np.float32(scale))
    assert parts is not None
    np.testing.assert_array_equal(parts[0], expected)
    np.testing.assert_array_equal(parts[1], np.full(len(signs), np.float32(scale)))


def test_a_channel_of_zeros_has_magnitude_0_and_signs() -> None:
    weight = np.array([[0.5, -0.5, 0.5], [0, 0, 0], [0, 2.0, -2.0]], np.float32)
    signs, scale = binary_weight(weight) or pytest.fail("it is binary")
    assert signs.tolist() == [[1, -1, 1], [1, 1, 1], [0, 1, -1]]
    assert scale.tolist() == [0.5, 0, 2]
    np.testing.assert_array_equal(signs * scale[:, None], weight)


def test_zeros_beside_straight_through_arithmetic_stay_zeros() -> None:
    latent = np.random.default_rng(5).uniform(-1, 1, (4, 9)).astype(np.float32)
    latent[1, 3] = latent[2, 0] = 0
    weight = np.float32(0.05) * np.sign(latent) - latent + latent
    assert len(np.unique(np.abs(weight))) > 2  # rounding left more than 0 and one magnitude
    signs, scale = binary_weight(weight) or pytest.fail("it is binary")
    np.testing.assert_array_equal(signs, np.sign(latent))
    np.testing.assert_allclose(scale, 0.05, rtol=1e-5)


NOT_BINARY = {
    "nothing but zeros": np.zeros((4, 9)),
    "mostly zeros": np.eye(4, 9),
    "one number per channel: a scale": np.array([[0.5], [-2.0], [1.0]]),
    "one number per channel among zeros": np.diag([1.0, 2.0]),
    "empty": np.zeros((0, 4)),
}


@pytest.mark.parametrize("case", NOT_BINARY)
def test_one_magnitude_per_channel_by_chance_is_not_binary(case) -> None:
    assert binary_weight(NOT_BINARY[case].astype(np.float32)) is None


def test_one_number_per_channel_is_binary_where_all_channels_agree() -> None:
    weight = np.array([[[[0.25]]], [[[-0.25]]], [[[0.25]]]], np.float32)
    signs, scale = binary_weight(weight) or pytest.fail("it is binary")
    assert (signs.ravel().tolist(), scale.tolist()) == ([1, -1, 1], [0.25] * 3)


@given(
    signs=signs_of,
    scale=st.floats(2.0**-8, 16, width=32),
    seed=st.integers(0, 2**32 - 1),
)
def test_straight_through_arithmetic_leaves_one_magnitude(signs, scale, seed) -> None:
    latent = np.random.default_rng(seed).uniform(-1, 1, signs.shape).astype(np.float32)
    weight = np.float32(scale) * signs - latent + latent
    parts = binary_weight(weight)
    assert parts is not None
    np.testing.assert_array_equal(parts[0], signs)
    np.testing.assert_allclose(parts[1], scale, rtol=1e-3, atol=2**-22)


@pytest.mark.parametrize(("factor", "is_binary"), [(1 + 1e-7, True), (1.001, False), (1.1, False)])
def test_more_than_rounding_makes_a_weight_float(factor, is_binary) -> None:
    weight = np.full((2, 3, 3, 3), 1.5, np.float32)
    weight[1, 2, 0, 1] *= np.float32(factor)
    parts = binary_weight(weight)
    assert (parts is not None) is is_binary
    if parts is not None:
        assert parts[1].tolist() == [1.5, 1.5]


def test_a_tiny_weight_among_ordinary_ones_is_no_rounding() -> None:
    weight = np.full((1, 8), 1e-8, np.float32)
    weight[0, 3] = 1e-7
    assert binary_weight(weight) is None
