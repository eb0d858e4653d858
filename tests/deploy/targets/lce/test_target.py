"""Facts of the real engine that the target rests on, and what the writer tells of its files."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.lce import TARGET, target
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.run_model import RuntimeMissingError, load_interpreter

RNG = np.random.default_rng(17)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, np.float32(1), np.float32(-1))
FLOAT = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)


def test_the_files_and_their_facts_are_told(converted) -> None:
    written = converted.written
    assert {role: path.name for role, path in written.files.items()} == {
        "model": "model.tflite",
        "keras": "model.keras",
    }
    assert written.input == {
        "name": "x", "shape": [1, 8, 8, 4], "layout": "NHWC", "dtype": "float32",
        "rotated": False,
    }  # fmt: skip
    assert sorted(path.name for path in converted.path.parent.iterdir()) == [
        "model.keras", "model.tflite",
    ]  # fmt: skip


def test_each_layer_is_listed_with_its_shape_and_operator(converted) -> None:
    assert [
        (layer["name"], layer["weight_shape"], layer["kernel"])
        for layer in converted.written.layers
    ] == [
        ("first", [8, 4, 3, 3], "LceBconv2d"),
        ("second", [40, 8, 3, 3], "LceBconv2d"),
        ("third", [3, 40], "LceBconv2d"),
    ]


@pytest.mark.parametrize(("size", "is_rotated"), [(8, True), (7, False)])
def test_a_rotated_input_is_left_to_the_caller_where_the_network_is_rotated(
    size, is_rotated, make_graph, lce_writer, run_graph, tmp_path
) -> None:
    graph = make_graph(
        f"g (float[1,4,{size},{size}] x) => (y)"
        " { s = Sign(x)  y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w) }",
        w=SIGNS,
    )
    lowered = TARGET.lower(graph)
    written = lce_writer.write(lowered, tmp_path, WriteOptions(input="rotated"))
    assert written.input["rotated"] is is_rotated
    names = [node.name for node in read_tflite(written.files["model"]).operators]
    # The one that is left turns the output, a map, back.
    assert names.count("REVERSE_V2") == is_rotated
    x = RNG.standard_normal((2, 4, size, size)).astype(np.float32)
    expected = np.concatenate([run_graph(graph, row[None]) for row in x])
    seen = written.execute(x)
    np.testing.assert_array_equal(seen.outputs, expected)
    np.testing.assert_array_equal(
        seen.signs[binary_convs(graph)[0].facts.name], np.where(x >= 0, 1, -1).reshape(2, -1)
    )
    interpreter = load_interpreter(written.files["model"].read_bytes())
    image = x[0].transpose(1, 2, 0)
    turned = image[::-1, ::-1] if is_rotated else image
    (by_hand,) = interpreter.predict([np.ascontiguousarray(turned[None])])
    np.testing.assert_array_equal(by_hand.transpose(0, 3, 1, 2), expected[:1])


def test_running_gives_the_signs_of_each_layer_in_pytorchs_layout(converted, run_graph) -> None:
    x = RNG.standard_normal((3, 4, 8, 8)).astype(np.float32)
    seen = converted.written.execute(x)
    convs = binary_convs(converted.lowered)
    assert {name: signs.shape for name, signs in seen.signs.items()} == {
        conv.facts.name: (3, np.prod(conv.facts.input_shape)) for conv in convs
    }
    np.testing.assert_array_equal(seen.signs["first"], np.where(x >= 0, 1, -1).reshape(3, -1))
    expected = np.concatenate([run_graph(converted.lowered, row[None]) for row in x])
    np.testing.assert_allclose(seen.outputs, expected, rtol=1e-5, atol=1e-5)


def test_signs_are_left_out_where_nobody_wants_them(converted) -> None:
    x = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)
    plain = converted.written.execute(x, wants_signs=False)
    assert plain.signs == {}
    np.testing.assert_array_equal(plain.outputs, converted.written.execute(x).outputs)


def test_a_missing_runtime_is_named_with_the_command_that_adds_it(converted, monkeypatch) -> None:
    def absent(*_, **__):
        raise RuntimeMissingError("not installed")

    monkeypatch.setattr(target, "load_interpreter", absent)
    with pytest.raises(MissingExtraError, match=r"running a model needs .*\[profile\]"):
        converted.written.execute(np.zeros((1, 4, 8, 8), np.float32))


def test_the_engine_turns_zero_into_plus_one(make_graph, write_lce) -> None:
    graph = make_graph(
        "g (float[1,4,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=np.ones((8, 4, 3, 3))
    )
    written = write_lce(graph)
    tiny = np.float32(1e-38)
    for value, sign in ((0.0, 1), (-0.0, 1), (tiny, 1), (-tiny * 2, -1)):
        seen = written.execute(np.full((1, 4, 8, 8), value, np.float32))
        (signs,) = seen.signs.values()
        assert set(signs.ravel()) == {sign}
        assert set(seen.outputs.ravel()) == {36.0 * sign}


def test_the_lowered_graph_agrees_with_the_engine_about_zero(make_graph, run_graph) -> None:
    graph = make_graph(
        "g (float[1,4,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=np.ones((8, 4, 3, 3))
    )
    zeros = np.zeros((1, 4, 8, 8), np.float32)
    assert set(run_graph(TARGET.lower(graph), zeros).ravel()) == {36.0}


@pytest.mark.parametrize(
    ("size", "kernel", "is_right"),
    [(1, 1, True), (1, 3, False), (2, 3, False), (3, 3, True), (4, 5, False), (5, 5, True)],
)
def test_zero_padding_of_a_map_smaller_than_the_kernel_is_why_it_is_refused(
    size, kernel, is_right, make_graph, run_graph, lce_writer, tmp_path
) -> None:
    pad = kernel // 2
    graph = make_graph(
        f"g (float[1,4,{size},{size}] x) => (y) {{"
        f" s = Sign(x)  y = Conv<pads=[{pad},{pad},{pad},{pad}]>(s, w) }}",
        w=np.where(
            np.random.default_rng(0).standard_normal((8, 4, kernel, kernel)) >= 0, 1.0, -1.0
        ),
    )
    assert (TARGET.refusals(graph) == []) is is_right
    x = RNG.standard_normal((1, 4, size, size)).astype(np.float32)
    outputs = lce_writer.write(TARGET.lower(graph), tmp_path).execute(x).outputs
    assert np.array_equal(outputs, run_graph(graph, x)) is is_right


# What a Keras model says, and what LCE makes of it: each name is one model.
_TRAPS = """
import sys
import larq, larq_compute_engine, numpy, tensorflow as tf
weights = numpy.load(sys.argv[1])
for name in ("float", "binary"):
    for size in (8, 9):
        x = entry = tf.keras.layers.Input((size, size, 4))
        kernel = weights[name].transpose(2, 3, 1, 0)
        if name == "binary":
            x = tf.where(x >= 0, 1.0, -1.0)
        x = tf.keras.layers.ZeroPadding2D(1)(x)
        layer = tf.keras.layers.Conv2D(8, 3, strides=2, use_bias=False)
        x = layer(x)
        layer.set_weights([kernel])
        content = larq_compute_engine.convert_keras_model(tf.keras.Model(entry, x))
        open(f"{sys.argv[2]}/{name}{size}.tflite", "wb").write(content)
x = entry = tf.keras.layers.Input((8, 8, 4))
layer = larq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign",
                                use_bias=False)
x = layer(x)
layer.set_weights([weights["binary"].transpose(2, 3, 1, 0)])
for rank in (1, 4):
    factor = numpy.linspace(0.5, 2, 8, dtype=numpy.float32).reshape([1] * (rank - 1) + [8])
    content = larq_compute_engine.convert_keras_model(tf.keras.Model(entry, x * factor))
    open(f"{sys.argv[2]}/rank{rank}.tflite", "wb").write(content)
"""


@pytest.fixture(scope="module")
def traps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traps")
    np.savez(folder / "weights.npz", float=FLOAT, binary=SIGNS)
    subprocess.run(
        [sys.executable, "-c", _TRAPS, str(folder / "weights.npz"), str(folder)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.mark.parametrize("kind", ["float", "binary"])
def test_explicit_padding_at_stride_2_is_why_networks_are_rotated(
    kind, traps, make_graph, run_graph, write_lce
) -> None:
    # LCE turns ((1, 1), (1, 1)) and VALID into SAME: wrong on an even map, right on an odd one.
    sign = "Sign" if kind == "binary" else "Identity"
    for size, is_wrong in ((8, True), (9, False)):
        graph = make_graph(
            f"g (float[1,4,{size},{size}] x) => (y) {{"
            f" s = {sign}(x)  y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w) }}",
            w=SIGNS if kind == "binary" else FLOAT,
        )
        x = RNG.standard_normal((1, 4, size, size)).astype(np.float32)
        expected = run_graph(graph, x)
        content = (traps / f"{kind}{size}.tflite").read_bytes()
        by_hand = load_interpreter(content, use_xnnpack=False).predict([x.transpose(0, 2, 3, 1)])
        is_equal = np.allclose(by_hand[0].transpose(0, 3, 1, 2), expected, atol=1e-4)
        assert is_equal is not is_wrong
        np.testing.assert_allclose(write_lce(graph).execute(x).outputs, expected, atol=1e-4)


def test_a_factor_of_rank_4_behind_a_binary_layer_is_why_constants_have_rank_1(traps) -> None:
    x = np.zeros((1, 8, 8, 4), np.float32)
    content = (traps / "rank1.tflite").read_bytes()
    assert load_interpreter(content).predict([x])[0].shape == (1, 6, 6, 8)
    code = (
        "import sys, pathlib; from bibench_deploy.targets.lce.run_model import load_interpreter; "
    )
    code += "load_interpreter(pathlib.Path(sys.argv[1]).read_bytes())"
    result = subprocess.run(
        [sys.executable, "-c", code, str(traps / "rank4.tflite")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode != 0
    assert "post_activation_multiplier" in result.stderr
