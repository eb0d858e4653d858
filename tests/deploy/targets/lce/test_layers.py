import numpy as np
import pytest

from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.layers import account_layers

RNG = np.random.default_rng(29)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, np.float32(1), np.float32(-1))


def test_a_binary_layer_takes_whole_words_and_its_multipliers_and_biases(converted) -> None:
    accounts = {layer["name"]: layer for layer in converted.written.layers}
    first, second, third = accounts["first"], accounts["second"], accounts["third"]
    assert first == {
        "name": "first", "kind": "binary_conv", "weight_shape": [8, 4, 3, 3],
        "intended_bits": 1, "intended_bytes": 8 * 9 * 4,
        "actual_bits": 1, "actual_bytes": 8 * 9 * 4 + 8 * 4 * 2,
        "kernel": "LceBconv2d", "fused": ["scale", "shift"],
    }  # fmt: skip
    assert second["intended_bytes"] == 40 * 9 * 4
    # 40 input channels need two words.
    assert (third["kind"], third["intended_bytes"]) == ("binary_linear", 3 * 2 * 4)


FLOAT = """g (float[1,4,8,8] x) => (y) {
    [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    [depthwise] b = Conv<group=16, pads=[1,1,1,1]>(a, w2)
    [point] c = Conv(b, w3)  [other] d = Conv(c, w4)
    e = BatchNormalization(d, scale, beta, mean, variance)
    p = Flatten(e)  [head] y = Gemm<transB=1>(p, w5, b5) }"""
WEIGHTS = {
    "w1": RNG.standard_normal((16, 4, 3, 3)), "b1": RNG.standard_normal(16),
    "w2": RNG.standard_normal((16, 1, 3, 3)),
    "w3": RNG.standard_normal((16, 16, 1, 1)), "w4": RNG.standard_normal((16, 16, 1, 1)),
    "scale": RNG.uniform(-2, 2, 16), "beta": RNG.standard_normal(16),
    "mean": RNG.standard_normal(16), "variance": RNG.uniform(0.5, 2, 16),
    "w5": RNG.standard_normal((8, 16 * 64)), "b5": RNG.standard_normal(8),
}  # fmt: skip


@pytest.fixture(scope="module")
def float_model(make_graph, lce_writer, tmp_path_factory):
    graph = make_graph(FLOAT, **WEIGHTS)
    folder = tmp_path_factory.mktemp("float")
    return lce_writer.write(TARGET.lower(graph), folder, source=graph)


def test_every_float_layer_is_found_by_its_numbers(float_model) -> None:
    accounts = {layer["name"]: layer for layer in float_model.layers}
    assert {name: layer["kernel"] for name, layer in accounts.items()} == {
        "stem": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "point": "CONV_2D",
        "other": "CONV_2D", "head": "FULLY_CONNECTED",
    }  # fmt: skip
    for layer in accounts.values():
        assert layer["intended_bits"] == layer["actual_bits"] == 32
        assert layer["intended_bytes"] == 4 * np.prod(layer["weight_shape"])
        assert layer["actual_bytes"] - layer["intended_bytes"] in (0, 4 * layer["weight_shape"][0])


def test_smaller_storage_is_counted_as_it_is_stored(float_model) -> None:
    options = WriteOptions(fully_connected="int8", float_storage="float16")
    content = float_model.files["model"].read_bytes()
    try:
        accounts = {layer["name"]: layer for layer in float_model.store_smaller(options).layers}
    finally:
        float_model.files["model"].write_bytes(content)
    head, stem = accounts["head"], accounts["stem"]
    assert (head["actual_bits"], head["actual_bytes"]) == (8, 8 * 16 * 64 + 8 * 4)
    assert stem["actual_bits"] == 16
    assert stem["actual_bytes"] == 2 * 16 * 4 * 9 + 16 * 4
    assert head["intended_bits"] == stem["intended_bits"] == 32


def test_a_batch_norm_in_front_does_not_hide_a_layer(make_graph, write_lce) -> None:
    graph = make_graph(
        """g (float[1,16] x) => (y) { [one] a = Gemm<transB=1>(x, w1)
            b = Mul(a, scale)  [two] y = Gemm<transB=1>(b, w2) }""",
        w1=RNG.standard_normal((12, 16)),
        scale=RNG.uniform(0.1, 3, 12),
        w2=RNG.standard_normal((5, 12)),
    )
    layers = write_lce(graph).layers
    assert [layer["kernel"] for layer in layers] == ["FULLY_CONNECTED"] * 2
    assert [layer["actual_bytes"] // 4 for layer in layers] == [12 * 16, 5 * 12]


def test_a_layer_that_the_file_does_not_hold_has_no_operator(make_graph, float_model) -> None:
    more = FLOAT.replace("=> (y)", "=> (z)").replace("b5) }", "b5)  [more] z = MatMul(y, w6) }")
    other = make_graph(more, **WEIGHTS, w6=RNG.standard_normal((8, 3)))
    file = read_tflite(float_model.files["model"])
    accounts = {layer["name"]: layer for layer in account_layers(other, other, [], file)}
    lost = accounts["more"]
    assert (lost["kernel"], lost["actual_bits"], lost["actual_bytes"]) == (None, None, None)
    assert accounts["head"]["kernel"] == "FULLY_CONNECTED"


def test_a_layer_in_pieces_is_one_entry_with_the_bytes_of_all(
    make_graph, write_lce, tmp_path, lce_writer
) -> None:
    weight = signs(64, 32, 3, 3)
    graph = make_graph(
        "g (float[1,64,8,8] x) => (y) { s = Sign(x)  [both] y = Conv<group=2>(s, w) }", w=weight
    )
    written = lce_writer.write(TARGET.lower(graph), tmp_path, source=graph)
    (layer,) = written.layers
    assert (layer["name"], layer["weight_shape"]) == ("both", [64, 32, 3, 3])
    assert layer["intended_bytes"] == 64 * 9 * 4
    assert layer["actual_bytes"] >= layer["intended_bytes"]
    file = read_tflite(written.files["model"])
    assert [node.name for node in file.operators].count("LceBconv2d") == 2


def test_a_sign_that_follows_at_once_is_told_as_fused(make_graph, write_lce) -> None:
    graph = make_graph(
        "g (float[1,32,8,8] x) => (y) { s = Sign(x)  [one] a = Conv(s, w)"
        "  b = Mul(a, scale)  t = Sign(b)  [two] y = Conv(t, w) }",
        w=signs(32, 32, 3, 3),
        scale=RNG.uniform(0.5, 2, (32, 1, 1)),
    )
    one, two = write_lce(graph).layers
    assert one["fused"][-1] == "sign"
    assert two["fused"] == []
