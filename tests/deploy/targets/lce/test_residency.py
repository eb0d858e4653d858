import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibench_deploy.errors import ConversionError
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.residency import (
    from_nhwc,
    pack_filter,
    prove_residency,
    to_nhwc,
    unpack_signs,
)
from bibench_deploy.verify.parity import Observation, compare

shapes = st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 3), st.integers(1, 3))


@given(shape=shapes, seed=st.integers(0, 2**32 - 1), is_rotated=st.booleans())
def test_packed_filters_unpack_to_the_same_signs(shape, seed, is_rotated) -> None:
    random = np.random.default_rng(seed).standard_normal(shape)
    weight = np.where(random >= 0, np.float32(1), np.float32(-1))
    packed = pack_filter(weight, is_rotated)
    outputs, inputs, height, width = shape
    words = np.frombuffer(packed, "<i4").reshape(outputs, height, width, -(-inputs // 32))
    np.testing.assert_array_equal(unpack_signs(words, inputs, is_rotated), weight)


@given(
    map_shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    is_rotated=st.booleans(),
)
def test_flattened_maps_are_put_in_order_and_back(map_shape, is_rotated) -> None:
    rows = np.arange(2 * np.prod(map_shape), dtype=np.float32).reshape(2, -1)
    stored = to_nhwc(rows, map_shape, is_rotated)
    channels, height, width = map_shape
    maps = rows.reshape(2, *map_shape)
    expected = maps[:, :, ::-1, ::-1] if is_rotated else maps
    np.testing.assert_array_equal(
        stored.reshape(2, height, width, channels), expected.transpose(0, 2, 3, 1)
    )
    np.testing.assert_array_equal(from_nhwc(stored, map_shape, is_rotated), rows)


def test_a_packed_word_holds_the_first_channel_in_its_lowest_bit() -> None:
    weight = np.ones((1, 33, 1, 1), np.float32)
    weight[0, [0, 5, 32]] = -1
    assert pack_filter(weight, False) == bytes([0b100001, 0, 0, 0, 1, 0, 0, 0])


def test_a_linear_weight_packs_like_a_convolution_of_one_tap() -> None:
    weight = np.where(np.random.default_rng(0).standard_normal((3, 40)) > 0, 1, -1)
    assert pack_filter(weight, True) == pack_filter(weight[:, :, None, None], False)


def test_real_filters_hold_exactly_the_bits_that_are_expected(converted) -> None:
    model = read_tflite(converted.path)
    found = [
        model.tensors[operator.inputs[1]].data
        for operator in model.operators
        if operator.name == "LceBconv2d"
    ]
    weights = [conv.weight for conv in binary_convs(converted.lowered)]
    assert found == [pack_filter(weight, is_rotated=True) for weight in weights]
    assert found[0] != pack_filter(weights[0], is_rotated=False)


def test_each_layer_is_matched_to_its_operator_in_graph_order(converted) -> None:
    model = read_tflite(converted.path)
    layers = prove_residency(binary_convs(converted.lowered), model, is_rotated=True)
    assert [layer.name for layer in layers] == ["first", "second", "third"]
    for layer, shape in zip(layers, [(1, 8, 8, 1), (1, 4, 4, 1), (1, 1, 1, 2)], strict=True):
        assert model.tensors[layer.packed_input].shape == shape
        assert model.tensors[layer.packed_input].dtype == "int32"


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_layer_whose_filter_is_not_in_the_file_is_named(lost, converted) -> None:
    convs = binary_convs(converted.lowered)
    convs[lost] = replace(convs[lost], weight=-convs[lost].weight)
    with pytest.raises(ConversionError) as raised:
        prove_residency(convs, read_tflite(converted.path), is_rotated=True)
    name = ("first", "second", "third")[lost]
    assert f"left 1 of 3 binary layers in float ({name})" in str(raised.value)


def test_the_wrong_orientation_is_no_proof(converted) -> None:
    with pytest.raises(ConversionError, match="first, second"):
        prove_residency(
            binary_convs(converted.lowered), read_tflite(converted.path), is_rotated=False
        )


def test_one_operator_proves_one_layer_only(converted) -> None:
    first, second, third = binary_convs(converted.lowered)
    elsewhere = replace(second, weight=first.weight)
    with pytest.raises(ConversionError, match="left 1 of 4"):
        prove_residency(
            [first, second, third, elsewhere], read_tflite(converted.path), is_rotated=True
        )


def test_equal_layers_on_equal_signs_may_share_an_operator(make_graph, write_lce) -> None:
    generator = np.random.default_rng(5)
    weight = np.where(generator.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
    graph = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            s = Sign(x)  t = Sign(x)  [one] a = Conv(s, w)  [two] b = Conv(t, v)
            c = PRelu(a, slope)  d = Concat<axis=1>(c, b)
            h = GlobalAveragePool(d)  y = Flatten(h) }""",
        w=weight, v=weight, slope=generator.uniform(0.1, 0.9, (8, 1, 1)),
    )  # fmt: skip
    written = write_lce(graph)
    file = read_tflite(written.files["model"])
    assert [node.name for node in file.operators].count("LceBconv2d") == 1
    lowered = TARGET.lower(graph)
    one, two = prove_residency(binary_convs(lowered), file, is_rotated=False)
    assert (one.name, two.name) == ("one", "two")
    assert one.operator is two.operator
    inputs = generator.standard_normal((2, 4, 8, 8)).astype(np.float32)
    executed = written.execute(inputs)
    seen = (executed.signs["one"], executed.signs["two"])
    assert compare(graph, inputs, Observation(executed.outputs, seen), "LCE").flip_rate == 0
    # The bytes that both share are counted once.
    first, second = written.layers
    assert first["kernel"] == "LceBconv2d"
    assert first["actual_bytes"] >= first["intended_bytes"]
    assert (second["kernel"], second["actual_bits"], second["actual_bytes"]) == (
        "LceBconv2d of one", 1, 0,
    )  # fmt: skip


# Binarized by hand, as Larq does, but the layer's weight is not ±a: 1 in 100 is zero.
_FALL_BACK = """
import sys
import larq_compute_engine, numpy, tensorflow as tf
weights = numpy.load(sys.argv[1])
for name in weights.files:
    x = entry = tf.keras.layers.Input((8, 8, 4))
    x = tf.where(x >= 0, 1.0, -1.0)
    kernel = weights[name].transpose(2, 3, 1, 0)
    layer = tf.keras.layers.Conv2D(8, 3, use_bias=False)
    x = layer(x)
    layer.set_weights([kernel])
    content = larq_compute_engine.convert_keras_model(tf.keras.Model(entry, x))
    open(f"{sys.argv[2]}/{name}.tflite", "wb").write(content)
"""


@pytest.fixture(scope="module")
def hand_made(tmp_path_factory):
    """Files of one layer each, converted by LCE from a plain Conv2D with the weight of its name."""
    folder = tmp_path_factory.mktemp("fallback")
    signs = np.where(np.random.default_rng(1).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
    zero, uneven = signs.copy(), signs.copy()
    zero[2, 1, 0, 0] = 0
    uneven[2, 1, 0, 0] *= 1.1
    weights = {"signs": signs, "zero": zero, "uneven": uneven}
    np.savez(folder / "weights.npz", **{k: v.astype(np.float32) for k, v in weights.items()})
    subprocess.run(
        [sys.executable, "-c", _FALL_BACK, str(folder / "weights.npz"), str(folder)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder, signs


@pytest.mark.parametrize("name", ["signs", "zero", "uneven"])
def test_a_layer_that_the_engine_left_in_float_fails_the_proof(name, hand_made, make_graph) -> None:
    folder, signs = hand_made
    text = "g (float[1,4,8,8] x) => (y) { s = Sign(x)  [layer] y = Conv(s, w) }"
    convs = binary_convs(make_graph(text, w=signs))
    model = read_tflite(folder / f"{name}.tflite")
    if name == "signs":
        assert [layer.name for layer in prove_residency(convs, model, False)] == ["layer"]
        return
    assert "CONV_2D" in [operator.name for operator in model.operators]
    with pytest.raises(ConversionError, match=r"1 of 1 binary layers in float \(layer"):
        prove_residency(convs, model, is_rotated=False)


def test_the_message_says_what_the_converter_left(converted) -> None:
    model = read_tflite(converted.path)
    sign = replace(model.operators[0], name="SIGN")
    with pytest.raises(ConversionError, match=r"none by name; it also left SIGN"):
        prove_residency(
            binary_convs(converted.lowered),
            replace(model, operators=(*model.operators, sign)),
            is_rotated=True,
        )


def test_layers_of_equal_filters_are_told_apart_whatever_their_order_in_the_file(
    make_graph, lce_writer, tmp_path
) -> None:
    # The converter puts the eight pieces of the second layer in another order: 2 … 7, 0, 1.
    signs = np.where(np.random.default_rng(0).standard_normal((8, 1, 1, 1)) > 0, 1.0, -1.0)
    graph = make_graph(
        """g (float[1,8,6,6] x) => (y) {
            s = Sign(x)  c = Conv<group=8>(s, v)  b = Add(c, half)
            t = Sign(b)  d = Conv<group=8, pads=[1,1,1,1]>(t, w)  y = Add(d, b) }""",
        v=signs,
        w=np.broadcast_to(signs, (8, 1, 3, 3)).copy(),
        half=0.5,
    )
    written = lce_writer.write(TARGET.lower(graph), tmp_path)
    inputs = np.random.default_rng(1).standard_normal((2, 8, 6, 6)).astype(np.float32)
    seen = written.execute(inputs)
    own = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
    assert compare(graph, inputs, Observation(seen.outputs, own), "LCE").unexplained_flips == 0


def test_a_filter_that_a_negative_batch_norm_has_turned_is_the_layers_own(
    make_graph, lce_writer, run_graph, tmp_path
) -> None:
    # Bits go from the first layer to the second, which a threshold decides for each channel.
    generator = np.random.default_rng(3)
    weights = np.where(generator.standard_normal((2, 8, 8, 3, 3)) > 0, 1.0, -1.0)
    graph = make_graph(
        """g (float[1,8,9,9] x) => (y) {
            s = Sign(x)  a = Conv(s, v)  b = BatchNormalization(a, gamma, beta, mean, variance)
            t = Sign(b)  y = Conv(t, w) }""",
        v=weights[0],
        w=weights[1],
        gamma=np.array([-1.5, 1, 2, -0.5, 1, 3, -2, 1]),
        beta=generator.standard_normal(8),
        mean=generator.standard_normal(8),
        variance=generator.uniform(0.5, 2, 8),
    )
    written = lce_writer.write(TARGET.lower(graph), tmp_path)
    model = read_tflite(written.files["model"])
    assert [node.name for node in model.operators] == ["LceQuantize", "LceBconv2d", "LceBconv2d"]
    filters = {model.tensors[node.inputs[1]].data for node in model.operators[1:]}
    assert filters != {pack_filter(weight, is_rotated=False) for weight in weights}
    x = generator.standard_normal((1, 8, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(written.execute(x).outputs, run_graph(graph, x))
