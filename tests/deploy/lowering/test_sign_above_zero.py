import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.sign_above_zero import sign_above_zero
from bibench_deploy.lowering.strict_sign import strict_sign

RNG = np.random.default_rng(2)
SIGNS = np.where(RNG.standard_normal((4, 4, 1, 1)) >= 0, 1.0, -1.0)
# Whole numbers, 0 among them.
X = RNG.integers(-1, 2, (1, 4, 5, 5)).astype(np.float32)
FROM_ZERO = "b = Less({}, zero)  s = Where(b, low, high)"
STRICT = "h = Greater(x, zero)  t = Where(h, high, low)"
ABOVE_ZERO = "b = Greater({}, zero)  s = Where(b, high, low)"


@pytest.fixture
def passed(make_graph, run_graph):
    """passed(text): the graph after both passes, which must compute as before."""

    def run(text: str):
        before = make_graph(
            f"g (float[1,4,5,5] x) => (y) {{ {text} }}",
            w=SIGNS, v=-SIGNS, k=np.linspace(-1, 2, 4).reshape(4, 1, 1), zero=0.0, low=-1.0,
            high=1.0, bias=np.ones(4),
        )  # fmt: skip
        canonical_binarization(before)
        after = before.clone()
        strict_sign(after)
        fold_channel_affine(after)
        sign_above_zero(after)
        np.testing.assert_allclose(run_graph(after, X), run_graph(before, X), atol=1e-6)
        assert len(binary_convs(after)) == len(binary_convs(before))
        return after

    return run


def compares(model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type in ("Less", "Greater")]


def adds(model) -> list[str]:
    return [node.name for node in model.graph if node.op_type == "Add"]


def test_a_sign_of_arithmetic_is_lifted_by_the_smallest_float(passed) -> None:
    model = passed(f"t = Mul(x, k)  {FROM_ZERO.format('t')}  y = Conv(s, w)")
    assert compares(model) == ["Greater"]
    assert adds(model) == ["t_above_zero"]


def test_a_strict_sign_reads_the_tensor_itself(passed) -> None:
    model = passed(f"t = Mul(x, k)  {ABOVE_ZERO.format('t')}  y = Conv(s, w)")
    assert compares(model) == ["Greater"]
    assert adds(model) == []


def test_the_sums_of_a_layer_are_left_to_its_own_shift(passed) -> None:
    first = FROM_ZERO.format("x").replace("s =", "q =").replace("b", "a")
    model = passed(
        f"{first}  c = Conv(q, w)  d = Mul(c, k)  {FROM_ZERO.format('d')}  y = Conv(s, v)"
    )
    assert compares(model) == ["Greater", "Less"]
    assert adds(model) == ["x_above_zero"]


@pytest.mark.parametrize(
    ("readers", "is_shared"),
    [
        # A sum of maps, a pooling, a clip, a convolution with a bias take 0 and tiny alike.
        ("d = Conv(s, w)  y = Add(d, x)", True),
        ("d = Conv(s, w)  p = Relu(x)  y = Add(d, p)", True),
        ("d = Conv(s, w)  p = Clip(x, low, high)  y = Add(d, p)", True),
        ("d = Conv(s, w)  p = Conv(x, v, bias)  y = Add(d, p)", True),
        # A negative factor and a convolution without one may make a negative number of it.
        ("d = Conv(s, w)  p = Mul(x, k)  y = Add(d, p)", False),
        ("d = Conv(s, w)  p = Relu(x)  q = Neg(p)  y = Add(d, q)", False),
        (f"d = Conv(s, w)  {STRICT}  p = Conv(t, v)  y = Add(d, p)", False),
    ],
)  # fmt: skip
def test_other_readers_share_the_sum_where_no_sign_notices(readers, is_shared, passed) -> None:
    model = passed(f"{FROM_ZERO.format('x')}  {readers}")
    (entry,) = model.graph.inputs
    assert (len(entry.uses()) == 1) == is_shared
