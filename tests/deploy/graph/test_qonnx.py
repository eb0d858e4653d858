import numpy as np
import onnx
import pytest

from bibench_deploy.errors import GraphError
from bibench_deploy.graph.facts import Granularity, binary_convs
from bibench_deploy.graph.load import load_graph, read_onnx

DOMAINS = ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"]
RNG = np.random.default_rng(3)
X = np.concatenate([np.arange(-3, 3.25, 0.25), 3 * RNG.standard_normal(250)]).astype(np.float32)
X = X[:264].reshape(1, 4, 22, 3)


@pytest.fixture
def save_qonnx(make_proto, tmp_path):
    """save_qonnx(text, domain=…, opset=13, version=1, **initializers): a file with QONNX nodes."""

    def save(text, domain=DOMAINS[0], opset=13, version=1, **arrays):
        names = ("BipolarQuant", "Quant", "IntQuant", "Trunc", "FloatQuant")
        proto = make_proto(text, opset=opset, **arrays)
        for node in proto.graph.node:
            if node.op_type in names:
                node.domain = domain
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
        path = tmp_path / "qonnx.onnx"
        onnx.save(proto, path)
        return path

    return save


def one(call: str) -> str:
    shape = ",".join(map(str, X.shape))
    return f"g (float[{shape}] x) => (float[{shape}] y) {{ y = {call} }}"


@pytest.mark.parametrize("domain", DOMAINS)
def test_bipolar_quant_is_a_scaled_sign_with_plus_one_at_zero(
    domain, save_qonnx, run_graph
) -> None:
    path = save_qonnx(one("BipolarQuant(x, s)"), domain=domain, s=np.array([0.5]))
    model = load_graph(path)
    assert [node.op_type for node in model.graph] == ["Less", "Where", "Mul"]
    assert set(model.opset_imports) == {""}
    assert (X == 0).any()
    np.testing.assert_array_equal(run_graph(model, X), np.where(X >= 0, 0.5, -0.5))


ROUNDINGS = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}
# Bits, signed, narrow: the integers that are left.
INTEGERS = {
    (8, 1, 0): (-128, 127), (8, 1, 1): (-127, 127), (4, 0, 0): (0, 15), (4, 0, 1): (0, 14),
    (2, 1, 0): (-2, 1), (2, 1, 1): (-1, 1), (1, 0, 0): (0, 1),
}  # fmt: skip


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("form", INTEGERS)
def test_quant_rounds_within_its_integers(form, rounding, save_qonnx, run_graph) -> None:
    bits, signed, narrow = form
    attributes = f'signed={signed}, narrow={narrow}, rounding_mode="{rounding}"'
    scale, zero_point = np.float32(0.25), np.float32(1)
    path = save_qonnx(one(f"Quant<{attributes}>(x, s, z, b)"), s=scale, z=zero_point, b=float(bits))
    low, high = INTEGERS[form]
    expected = ROUNDINGS[rounding](np.clip(X / scale + zero_point, low, high))
    expected = (expected - zero_point) * scale
    np.testing.assert_array_equal(run_graph(load_graph(path), X), expected)


def test_a_signed_quant_of_one_bit_is_a_sign(save_qonnx, run_graph) -> None:
    call = 'IntQuant<signed=1, narrow=1, rounding_mode="ROUND">(x, s, z, b)'
    model = load_graph(save_qonnx(one(call), s=2.0, z=0.0, b=1.0))
    np.testing.assert_array_equal(run_graph(model, X), np.where(X >= 0, 2.0, -2.0))


def test_trunc_drops_bits(save_qonnx, run_graph) -> None:
    call = 'Trunc<rounding_mode="FLOOR">(x, s, z, from, to)'
    model = load_graph(save_qonnx(one(call), s=0.125, z=0.0, **{"from": 8.0, "to": 6.0}))
    expected = np.floor(np.round(X / 0.125) / 4) * 0.125
    np.testing.assert_array_equal(run_graph(model, X), expected)


def test_trunc_with_an_output_scale_clips_as_well(save_qonnx, run_graph) -> None:
    call = 'Trunc<rounding_mode="FLOOR", signed=1, narrow=0>(x, s, z, from, out, to)'
    path = save_qonnx(one(call), version=2, s=0.125, z=0.0, out=0.5, **{"from": 8.0, "to": 3.0})
    expected = np.floor(np.clip(np.round(X / np.float32(0.125)) / 4, -4, 3)) * 0.5
    np.testing.assert_array_equal(run_graph(load_graph(path), X), expected)


BREVITAS = """g (float[1,3,8,8] x) => (float[1,5] y) {
    w0 = Quant<signed=1, narrow=1, rounding_mode="ROUND">(first, s0, zero, eight)
    c0 = Conv<pads=[1,1,1,1]>(x, w0)
    r = Relu(c0)
    q0 = Quant<signed=0, narrow=0, rounding_mode="ROUND">(r, s0, zero, four)
    n0 = BatchNormalization(q0, gamma, beta, mean, variance)
    half = Constant<value = float[1] {0.5}>()
    [binary] q1 = BipolarQuant(n0, half)
    w1 = BipolarQuant(latent, s1)
    [conv] c1 = Conv<pads=[1,1,1,1]>(q1, w1)
    p = GlobalAveragePool(c1)  f = Flatten(p)
    q2 = BipolarQuant(f, one)
    w2 = BipolarQuant(rows, s2)
    [linear] y = Gemm<transB=1>(q2, w2, bias)
}"""
NETWORK = {
    "first": RNG.standard_normal((4, 3, 3, 3)), "latent": RNG.standard_normal((6, 4, 3, 3)),
    "rows": RNG.standard_normal((5, 6)), "bias": RNG.standard_normal(5), "s0": 0.125,
    "s1": RNG.uniform(0.1, 1, (6, 1, 1, 1)), "s2": 0.375, "zero": 0.0, "one": 1.0, "four": 4.0,
    "eight": 8.0, "gamma": RNG.uniform(0.5, 1, 4), "beta": RNG.standard_normal(4),
    "mean": RNG.standard_normal(4), "variance": RNG.uniform(0.5, 1, 4),
}  # fmt: skip


@pytest.mark.parametrize("opset", [11, 13, 20])
def test_the_layers_of_a_network_from_brevitas_are_binary(opset, save_qonnx) -> None:
    conv, linear = binary_convs(load_graph(save_qonnx(BREVITAS, opset=opset, **NETWORK)))
    assert (conv.facts.name, conv.facts.scale) == ("conv", Granularity.CHANNEL)
    assert (linear.facts.name, linear.facts.scale) == ("linear", Granularity.TENSOR)
    assert (conv.facts.at_threshold, linear.facts.at_threshold) == (1, 1)
    np.testing.assert_array_equal(conv.weight, np.where(NETWORK["latent"] >= 0, 1, -1))
    np.testing.assert_allclose(conv.magnitude, NETWORK["s1"].ravel() / 2, rtol=1e-6)


def test_onnx_runtime_runs_what_is_read_from_a_network_of_brevitas(save_qonnx, run_graph) -> None:
    path = save_qonnx(BREVITAS, **NETWORK)
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run_graph(read_onnx(path), x), run_graph(load_graph(path), x))


def test_a_function_that_holds_a_quantizer_is_written_out(
    make_proto, save_qonnx, run_graph
) -> None:
    path = save_qonnx(one("BipolarQuant(x, s)"), s=1.0)
    proto = onnx.load(path)
    (call,) = proto.graph.node
    body = onnx.helper.make_node("BipolarQuant", ["a", "b"], ["c"], domain=DOMAINS[0])
    imports = [
        onnx.helper.make_opsetid(name, number) for name, number in (("", 13), (DOMAINS[0], 1))
    ]
    proto.functions.append(
        onnx.helper.make_function("mine", "Binarize", ["a", "b"], ["c"], [body], imports)
    )
    call.op_type, call.domain = "Binarize", "mine"
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    onnx.save(proto, path)
    model = load_graph(path)
    np.testing.assert_array_equal(run_graph(model, X), np.where(X >= 0, 1, -1))


def test_a_bit_width_that_is_computed_is_refused_by_name(save_qonnx) -> None:
    text = """g (float[1,4] x) => (float[1,4] y) {
        b = ReduceMax<keepdims=0>(x)  [quantizer] y = Quant<signed=1, narrow=0>(x, s, z, b) }"""
    message = r'qonnx\.onnx: node "quantizer" \(Quant\): its bit width is computed; .* whole number'
    with pytest.raises(GraphError, match=message):
        load_graph(save_qonnx(text, s=1.0, z=0.0))


@pytest.mark.parametrize("width", [0.0, 2.5, 64.0, np.array([2.0, 3.0])])
def test_a_bit_width_of_other_than_one_small_integer_is_refused(width, save_qonnx) -> None:
    with pytest.raises(GraphError, match=r"its bit width is \["):
        load_graph(save_qonnx(one("Quant(x, s, z, b)"), s=1.0, z=0.0, b=width))


def test_an_unknown_rounding_is_refused(save_qonnx) -> None:
    call = 'Quant<signed=1, narrow=0, rounding_mode="DITHER">(x, s, z, b)'
    with pytest.raises(GraphError, match='rounds by "DITHER", which QONNX does not define'):
        load_graph(save_qonnx(one(call), s=1.0, z=0.0, b=4.0))


def test_a_quantizer_without_its_inputs_is_refused(save_qonnx) -> None:
    with pytest.raises(GraphError, match=r"\(BipolarQuant\) has 1 inputs, and QONNX gives it 2"):
        load_graph(save_qonnx(one("BipolarQuant(x)")))


def test_other_nodes_of_qonnx_stay_as_they_are(save_qonnx) -> None:
    text = "g (float[1,4] x) => (float[1,4] y) { h = Relu(x)  y = FloatQuant(h, s) }"
    model = load_graph(save_qonnx(text, s=1.0))
    assert [node.op_type for node in model.graph] == ["Relu", "FloatQuant"]
    assert DOMAINS[0] in model.opset_imports
