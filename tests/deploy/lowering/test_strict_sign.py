import numpy as np

from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.strict_sign import strict_sign

SIGNS = np.where(np.random.default_rng(2).standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0)
PAD = {"amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "low": -1.0, "high": 1.0, "zero": 0.0}


def test_a_sign_that_is_minus_one_at_zero_becomes_greater(make_graph, run_graph) -> None:
    model = make_graph(
        """g (float[1,4,5,5] x) => (y) { b = Greater(x, zero)  s = Where(b, high, low)
            p = Pad(s, amounts, low)  y = Conv(p, w) }""",
        w=SIGNS, **PAD,
    )  # fmt: skip
    canonical_binarization(model)
    assert "Add" in [node.op_type for node in model.graph]
    before = model.clone()
    strict_sign(model)
    # The padding stays, and is still marked as layout.
    assert [node.op_type for node in model.graph] == ["Pad", "Greater", "Where", "Conv"]
    x = np.random.default_rng(1).integers(-1, 2, (1, 4, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(model, x), run_graph(before, x))


def test_a_sign_that_is_plus_one_at_zero_stays(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,5,5] x) => (y) { b = Less(x, zero)  s = Where(b, low, high)
            y = Conv(s, w) }""",
        w=SIGNS, **PAD,
    )  # fmt: skip
    canonical_binarization(model)
    strict_sign(model)
    assert [node.op_type for node in model.graph] == ["Less", "Where", "Conv"]
