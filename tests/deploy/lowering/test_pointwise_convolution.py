import numpy as np
import pytest

from bibench_deploy.graph.facts import Granularity, binary_convs, shape_of
from bibench_deploy.lowering.pointwise_convolution import pointwise_convolution
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.verify.parity import Observation, compare

RNG = np.random.default_rng(17)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ARRAYS = {
    "w": signs(6, 5), "alpha": RNG.integers(1, 9, 5) / 4, "shift": RNG.integers(-8, 8, 5) / 4,
    "place": RNG.integers(-8, 8, (3, 1)) / 4, "all": np.array([-1, 6]),
    "spread": np.array([1, 2, 3, 6]),
}  # fmt: skip
# Name: (shape of the input, body).
GRAPHS = {
    "tokens": ("1,3,6", "s = Sign(x)  y = MatMul(s, w)"),
    "channels last": ("1,2,3,6", "s = Sign(x)  y = MatMul(s, w)"),
    "more axes": ("1,2,2,3,6", "s = Sign(x)  y = MatMul(s, w)"),
    "scale and shift per feature": (
        "1,3,6", "s = Sign(x)  a = MatMul(s, w)  b = Mul(alpha, a)  c = Sub(shift, b) y = Relu(c)"),
    "shift per place": (
        "1,2,3,6", "s = Sign(x)  a = MatMul(s, w)  b = Mul(a, alpha)  y = Add(b, place)"),
    "reshaped signs": (
        "1,6,6", "s = Sign(x)  r = Reshape(s, spread)  a = MatMul(r, w)  y = Neg(a)"),
    "two readers": ("1,3,6", "s = Sign(x)  a = MatMul(s, w)  b = Mul(a, alpha)  y = Add(a, b)"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_is_computed_to_the_bit_by_a_convolution_of_one_tap(
    name, make_graph, keeps
) -> None:
    shape, body = GRAPHS[name]
    model = make_graph(f"g (float[{shape}] x) => (y) {{ {body} }}", **ARRAYS)
    output = shape_of(model.graph.outputs[0])
    keeps(pointwise_convolution, model)
    assert shape_of(model.graph.outputs[0]) == output
    assert "MatMul" not in [node.op_type for node in model.graph]
    (conv,) = binary_convs(model)
    assert (conv.facts.kind, conv.facts.weight_shape) == ("conv", (5, 6, 1, 1))


def test_a_layer_of_rows_stays_a_product(make_graph) -> None:
    model = make_graph("g (float[1,6] x) => (y) { s = Sign(x)  y = MatMul(s, w) }", **ARRAYS)
    pointwise_convolution(model)
    assert [node.op_type for node in model.graph] == ["Sign", "MatMul"]


def test_a_float_layer_of_tokens_stays_a_product(make_graph) -> None:
    model = make_graph("g (float[1,3,6] x) => (y) { s = Relu(x)  y = MatMul(s, w) }", **ARRAYS)
    pointwise_convolution(model)
    assert [node.op_type for node in model.graph] == ["Relu", "MatMul"]


def test_factors_per_feature_come_before_the_old_order_does(make_graph) -> None:
    shape, body = GRAPHS["scale and shift per feature"]
    model = make_graph(f"g (float[{shape}] x) => (y) {{ {body} }}", **ARRAYS)
    assert binary_convs(model)[0].facts.scale is Granularity.CHANNEL
    pointwise_convolution(model)
    assert [node.op_type for node in model.graph] == [
        "Sign", "Reshape", "Transpose", "Conv", "Mul", "Sub", "Transpose", "Reshape", "Relu",
    ]  # fmt: skip


def test_layers_that_read_the_same_tokens_share_their_map(make_graph, keeps) -> None:
    model = make_graph(
        """g (float[1,3,6] x) => (y) { s = Sign(x)
            q = MatMul(s, w)  k = MatMul(s, other)  y = Add(q, k) }""",
        w=ARRAYS["w"],
        other=signs(6, 5),
    )
    keeps(pointwise_convolution, model)
    operators = [node.op_type for node in model.graph]
    assert operators[:4] == ["Sign", "Reshape", "Transpose", "Conv"]
    assert operators.count("Conv") == 2
    assert operators.count("Transpose") == 3


def test_a_scale_per_token_is_no_scale_per_channel(make_graph) -> None:
    model = make_graph(
        "g (float[1,5,6] x) => (y) { s = PlusMinus(x)  a = MatMul(s, w)  y = Mul(a, tokens) }",
        w=ARRAYS["w"],
        tokens=np.arange(1, 6).reshape(5, 1),
    )
    assert binary_convs(model)[0].facts.scale is Granularity.SPATIAL
    (reason,) = TARGET.refusals(model)
    assert reason.rule == "scale-granularity"


THROUGH_LCE = {
    "tokens behind a strided convolution": """s0 = PlusMinus(x)
        [stem] h = Conv<strides=[2,2], pads=[1,1,1,1]>(s0, stem)
        t1 = Reshape(h, flat)  t2 = Transpose<perm=[0,2,1]>(t1)  t = Sub(t2, own)
        s = Sign(t)  a = MatMul(s, w1)  b = Mul(a, alpha)  c = Add(b, shift)
        u = Sign(c)  d = MatMul(u, w2)  y = Mul(d, alpha)""",
    "channels last behind a strided convolution": """s0 = PlusMinus(x)
        [stem] h = Conv<strides=[2,2], pads=[1,1,1,1]>(s0, stem)
        t2 = Transpose<perm=[0,2,3,1]>(h)  t = Sub(t2, own)
        s = Sign(t)  a = MatMul(s, w1)  b = Mul(a, alpha)  c = Add(b, shift)
        u = Sign(c)  d = MatMul(u, w2)  y = Transpose<perm=[0,3,1,2]>(d)""",
}


@pytest.mark.parametrize("name", THROUGH_LCE)
def test_lce_runs_it_with_the_same_signs(name, make_graph, write_lce) -> None:
    graph = make_graph(
        f"g (float[1,4,6,8] x) => (y) {{ {THROUGH_LCE[name]} }}",
        stem=signs(8, 4, 3, 3),
        w1=signs(8, 40) * RNG.uniform(0.5, 2, 40),
        w2=signs(40, 40),
        flat=np.array([1, 8, 12]),
        own=RNG.uniform(-1, 1, 8),
        alpha=RNG.uniform(0.5, 2, 40),
        shift=RNG.uniform(-1, 1, 40),
    )
    assert TARGET.refusals(graph) == []
    written = write_lce(graph)
    kernels = [node.name for node in read_tflite(written.files["model"]).operators]
    assert kernels.count("LceBconv2d") == 3
    inputs = RNG.standard_normal((3, 4, 6, 8)).astype(np.float32)
    executed = written.execute(inputs)
    layers = [conv.facts.name for conv in binary_convs(graph)]
    seen = tuple(executed.signs[layer] for layer in layers)
    parity = compare(graph, inputs, Observation(executed.outputs, seen), "LCE")
    assert parity.unexplained_flips == 0
    assert len(parity.layers) == 3
