import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.fold_constants import constant_of

PER_CHANNEL = np.array([[[[0.25]], [[-1.0]], [[3.5]]]])
OPERATORS = ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


def text(comparison: str) -> str:
    nodes = f"[compare] c = {comparison}  y = Cast<to=1>(c)"
    return f"g (float[1,3,4,4] x) => (float[1,3,4,4] y) {{ {nodes} }}"


@pytest.mark.parametrize("thresholds", [PER_CHANNEL, np.tile(PER_CHANNEL, (1, 1, 4, 4))])
@pytest.mark.parametrize("operands", ["x, t", "t, x"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_thresholds_become_a_shift_of_one_number_per_channel(
    operator, operands, thresholds, make_proto, make_graph, run_graph
) -> None:
    written = text(f"{operator}({operands})")
    model = make_graph(written, t=thresholds)
    shift, compare, _ = model.graph
    assert (shift.op_type, compare.op_type, compare.name) == ("Sub", operator, "compare")
    np.testing.assert_array_equal(constant_of(shift.inputs[1]), PER_CHANNEL)
    # Quarters, so that many numbers are the threshold itself.
    x = np.random.default_rng(0).integers(-16, 17, (1, 3, 4, 4)).astype(np.float32) / 4
    x[:, :, 0, 0] = PER_CHANNEL[:, :, 0, 0]
    expected = run_graph(make_proto(written, t=thresholds), x)
    np.testing.assert_array_equal(run_graph(model, x), expected)


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.data())
def test_a_difference_has_the_sign_that_the_comparison_tells(threshold, data) -> None:
    t = np.float32(threshold)
    with np.errstate(over="ignore"):
        near = [t, *(np.nextafter(t, np.float32(end)) for end in (-np.inf, np.inf))]
    any_number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    x = data.draw(st.sampled_from(near) | any_number.map(np.float32))
    with np.errstate(over="ignore"):
        difference = x - t
    assert (difference > 0, difference >= 0) == (x > t, x >= t)


@pytest.mark.parametrize(
    "thresholds", [0.5, np.full((1, 3, 1, 1), 0.5), np.array([[[[np.inf]], [[0]], [[1]]]])]
)
def test_one_number_and_what_is_not_finite_are_compared_as_they_are(thresholds, make_graph) -> None:
    model = make_graph(text("Greater(x, t)"), t=thresholds)
    assert [node.op_type for node in model.graph] == ["Greater", "Cast"]
