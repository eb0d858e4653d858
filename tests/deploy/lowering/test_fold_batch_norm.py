from typing import Any

import numpy as np
import pytest

from bibench_deploy.lowering.fold_batch_norm import fold_batch_norm
from tests.deploy.geometries import signs

RNG = np.random.default_rng(0)
ARRAYS = {
    "f": RNG.standard_normal((6, 3, 3, 3)), "b": RNG.standard_normal(6),
    "gamma": RNG.standard_normal(6), "beta": RNG.standard_normal(6),
    "mean": RNG.standard_normal(6), "variance": RNG.uniform(0.5, 2, 6),
    "w": signs((6, 3, 3, 3)),
}  # fmt: skip
NORM = "BatchNormalization(c, gamma, beta, mean, variance)"
TEXT = "g (float[1,3,6,6] x) => (y) {{ {} }}"


def arrays(text: str) -> dict[str, Any]:
    return {name: array for name, array in ARRAYS.items() if f" {name}" in text}


@pytest.mark.parametrize(
    "layer", ["c = Conv(x, f)", "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, f, b)"]
)
def test_a_float_convolution_takes_the_batch_norm_behind_it(
    layer: str, make_graph: Any, run_graph: Any
) -> None:
    text = TEXT.format(f"{layer}  n = {NORM}  y = Relu(n)")
    model = make_graph(text, **arrays(text))
    x = RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)
    expected = run_graph(model, x)
    fold_batch_norm(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]
    np.testing.assert_allclose(run_graph(model, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "nodes",
    [
        f"c = Conv(x, f)  n = {NORM}  y = Add(c, n)",
        f"s = Sign(x)  c = Conv(s, w)  n = {NORM}  y = Relu(n)",
        "e = Conv(x, f)  c = Relu(e)  y = " + NORM,
    ],
)  # fmt: skip
def test_it_stays_where_others_read_the_convolution_or_it_is_binary(
    nodes: str, make_graph: Any
) -> None:
    text = TEXT.format(nodes)
    model = make_graph(text, **arrays(text))
    fold_batch_norm(model)
    assert "BatchNormalization" in [node.op_type for node in model.graph]
