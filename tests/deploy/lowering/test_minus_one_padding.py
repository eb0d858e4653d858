import numpy as np
import pytest

from bibench_deploy.graph.facts import state_facts
from bibench_deploy.lowering.minus_one_padding import minus_one_padding

RNG = np.random.default_rng(5)
SIGNS = np.where(RNG.standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0)
X = RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)
ARRAYS = {"w": SIGNS, "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "minus": -1.0, "one": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w)",
        "s = Sign(x)  p = Pad(s, amounts)  y = Conv(p, w)",
        "s = Sign(x)  p = Pad(s, amounts, one)  y = Conv(p, w)",
        'y = Conv<auto_pad="SAME_UPPER">(s, w)',
    ],
)
def test_every_padding_becomes_minus_one_and_what_is_inside_stays(
    text, make_graph, run_graph
) -> None:
    text = text if "Sign" in text else f"s = Sign(x)  {text}"
    model = make_graph(f"g (float[1,4,6,6] x) => (y) {{ {text} }}", **ARRAYS)
    (before,) = state_facts(model)
    changed = model.clone()
    assert minus_one_padding(changed) == 1
    (after,) = state_facts(changed)
    assert (after.pads, after.pad_value) == ((1, 1, 1, 1), -1)
    assert (after.name, after.output_shape) == (before.name, before.output_shape)
    seen, other = run_graph(changed, X), run_graph(model, X)
    np.testing.assert_array_equal(seen[:, :, 1:-1, 1:-1], other[:, :, 1:-1, 1:-1])
    signs = np.pad(np.sign(X), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-1)
    corner = (SIGNS * signs[0, None, :, :3, :3]).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(seen[0, :, 0, 0], corner)


def test_activations_of_zero_and_one_are_padded_with_zero(make_graph) -> None:
    # 0 is their lower level: −1 in terms of signs, which is what it was.
    model = make_graph(
        """g (float[1,4,6,6] x) => (y) { r = Relu(x)  s = Sign(r)
            y = Conv<pads=[1,1,1,1]>(s, w) }""",
        w=SIGNS,
    )  # fmt: skip
    assert state_facts(model)[0].pad_value == -1
    assert minus_one_padding(model) == 0


def test_without_padding_nothing_changes(make_graph) -> None:
    text = "g (float[1,4,6,6] x) => (y) { s = Sign(x)  y = Conv(s, w) }"
    assert minus_one_padding(make_graph(text, w=SIGNS)) == 0
