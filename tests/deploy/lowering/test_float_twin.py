import numpy as np

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.float_twin import float_twin

RNG = np.random.default_rng(6)
X = RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
LINEAR = np.where(RNG.standard_normal((3, 8)) >= 0, 1.0, -1.0)
BINARY = """g (float[1,4,6,6] x) => (y) {
    h = Clip(x, minus, one)  s = Sign(h)  c = Conv<pads=[1,1,1,1], strides=[2,2]>(s, scaled)
    p = GlobalAveragePool(c)  f = Flatten(p)  t = Sign(f)  y = Gemm<transB=1>(t, v) }"""
TWIN = """g (float[1,4,6,6] x) => (y) {
    h = Clip(x, minus, one)  c = Conv<pads=[1,1,1,1], strides=[2,2]>(h, mean)  d = Mul(c, alpha)
    p = GlobalAveragePool(d)  f = Flatten(p)  y = Gemm<transB=1>(f, w) }"""
BOUNDS = {"one": 1.0, "minus": -1.0}


def twin_of(model):
    twin = model.clone()
    canonical_binarization(twin)
    float_twin(twin)
    return twin


def test_the_twin_is_the_same_network_with_float_layers(make_graph, run_graph) -> None:
    alpha = np.linspace(0.5, 2, 8)
    twin = twin_of(make_graph(BINARY, scaled=SIGNS * alpha.reshape(8, 1, 1, 1), v=LINEAR, **BOUNDS))
    expected = make_graph(
        TWIN, mean=SIGNS / 36, alpha=alpha.reshape(8, 1, 1), w=LINEAR / 8, **BOUNDS
    )
    assert [node.op_type for node in twin.graph] == [node.op_type for node in expected.graph]
    np.testing.assert_allclose(run_graph(twin, X), run_graph(expected, X), rtol=1e-5, atol=1e-6)


def test_no_sign_and_no_binary_layer_is_left(make_graph) -> None:
    twin = twin_of(make_graph(BINARY, scaled=SIGNS * 2, v=LINEAR, **BOUNDS))
    assert binary_convs(twin) == []
    left = {node.op_type for node in twin.graph}
    assert not left & {"Sign", "Where", "GreaterOrEqual", "Greater", "Less"}


def test_weights_have_the_binary_layers_shapes(make_graph) -> None:
    model = make_graph(BINARY, scaled=SIGNS, v=LINEAR, **BOUNDS)
    twin = twin_of(model)
    shapes = [
        constant_of(node.inputs[1]).shape for node in twin.graph if node.op_type in ("Conv", "Gemm")
    ]
    assert shapes == [SIGNS.shape, LINEAR.shape]
    assert [node.name for node in twin.graph if node.op_type in ("Conv", "Gemm")] == ["c", "y"]


def test_a_float_network_is_its_own_twin(make_graph) -> None:
    model = make_graph(TWIN, mean=SIGNS / 36, alpha=1.0, w=LINEAR / 8, **BOUNDS)
    before = [node.op_type for node in model.graph]
    float_twin(model)
    assert [node.op_type for node in model.graph] == before
