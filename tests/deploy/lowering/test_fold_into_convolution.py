import numpy as np
import pytest

from bibench_deploy.lowering.fold_into_convolution import fold_into_convolution

RNG = np.random.default_rng(5)
X = RNG.standard_normal((1, 4, 5, 5)).astype(np.float32)
ARRAYS = {
    "w": RNG.standard_normal((6, 4, 3, 3)), "v": RNG.standard_normal((4, 1, 3, 3)),
    "b": RNG.standard_normal(6), "k": RNG.standard_normal((6, 1, 1)),
    "m": RNG.standard_normal((1, 6, 1, 1)), "gamma": RNG.standard_normal(6),
    "beta": RNG.standard_normal(6), "mean": RNG.standard_normal(6),
    "variance": RNG.uniform(0.5, 2, 6), "rows": RNG.standard_normal((3, 1)),
    "signs": np.where(RNG.standard_normal((6, 4, 3, 3)) > 0, 1.0, -1.0),
    "two": 2.0,
}  # fmt: skip


@pytest.fixture
def operators(make_graph, run_graph):
    """operators(text): of the graph after the pass, which must compute as before."""

    def run(text: str) -> list[str]:
        before = make_graph(f"g (float[1,4,5,5] x) => (y) {{ {text} }}", **ARRAYS)
        after = before.clone()
        fold_into_convolution(after)
        np.testing.assert_allclose(run_graph(after, X), run_graph(before, X), rtol=2e-5, atol=2e-5)
        return [node.op_type for node in after.graph]

    return run


@pytest.mark.parametrize(
    "text",
    [
        "c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, variance)",
        "c = Conv(x, w, b)  y = BatchNormalization(c, gamma, beta, mean, variance)",
        "c = Conv(x, w)  d = Mul(c, k)  e = Add(d, m)  f = Div(e, two)  y = Sub(f, k)",
        "c = Conv(x, w, b)  y = Sub(two, c)",
    ],
)
def test_what_is_computed_per_channel_becomes_weights_and_bias(text, operators) -> None:
    assert operators(text) == ["Conv"]


def test_groups_keep_their_channels(operators) -> None:
    text = "c = Conv<group=4>(x, v)  y = Mul(c, two)"
    assert operators(text) == ["Conv"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("c = Conv(x, w)  y = Mul(c, rows)", ["Conv", "Mul"]),
        ("c = Conv(x, w)  d = Mul(c, k)  r = Relu(c)  y = Add(d, r)", None),
        ("s = Sign(x)  c = Conv(s, signs)  y = Mul(c, k)", ["Sign", "Conv", "Mul"]),
    ],
)
def test_what_is_not_of_one_convolution_alone_stays(text, left, operators) -> None:
    found = operators(text)
    assert found == (left or ["Conv", "Mul", "Relu", "Add"])
