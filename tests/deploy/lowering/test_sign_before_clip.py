import numpy as np
import pytest

from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.sign_before_clip import sign_before_clip

RNG = np.random.default_rng(5)
SIGNS = np.where(RNG.standard_normal((4, 4, 1, 1)) >= 0, 1.0, -1.0)
X = 2 * RNG.standard_normal((1, 4, 5, 5)).astype(np.float32)
BLOCK = "h = Clip(n, {})  s = Sign(h)  c = Conv(s, w)  y = Add(c, h)"


@pytest.fixture
def passed(make_graph, run_graph):
    def run(text: str, **arrays):
        before = make_graph(
            f"g (float[1,4,5,5] x) => (y) {{ n = Neg(x)  {text} }}",
            w=SIGNS, one=1.0, minus=-1.0, zero=0.0, half=0.5, **arrays,
        )  # fmt: skip
        canonical_binarization(before)
        after = before.clone()
        sign_before_clip(after)
        np.testing.assert_array_equal(run_graph(after, X), run_graph(before, X))
        return after

    return run


def read_by_the_sign(model) -> str:
    (compare,) = [node for node in model.graph if node.op_type in ("Less", "Greater")]
    return compare.inputs[0].name


@pytest.mark.parametrize("bounds", ["minus, one", "minus", ", one"])
def test_a_sign_reads_what_is_before_a_clip_that_a_shortcut_reads(bounds, passed) -> None:
    model = passed(BLOCK.format(bounds))
    assert read_by_the_sign(model) == "n"
    assert sum(node.op_type == "Clip" for node in model.graph) == 1


def test_a_clip_that_changes_signs_is_read_as_it_is(passed) -> None:
    assert read_by_the_sign(passed(BLOCK.format("minus, zero"))) == "h"


def test_padding_between_both_is_no_obstacle(passed) -> None:
    text = """h = Clip(n, minus, one)  s = Sign(h)  p = Pad(s, amounts, minus)  c = Conv(p, w)
        q = Pad(h, amounts)  y = Add(c, q)"""
    model = passed(text, amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    (pad,) = [node for node in model.graph if node.op_type == "Pad" and len(node.inputs) == 3]
    assert pad.inputs[0].name == "n"


def test_a_clip_that_signs_alone_read_goes(passed) -> None:
    model = passed("h = Clip(n, minus, one)  s = Sign(h)  y = Conv(s, w)")
    assert not [node for node in model.graph if node.op_type == "Clip"]


def test_of_two_in_a_row_both_are_passed(passed) -> None:
    model = passed(f"n2 = Clip(n, minus, half)  {BLOCK.format('minus, one').replace('n,', 'n2,')}")
    assert read_by_the_sign(model) == "n"
