"""What LCE's converter gets wrong without a word, and that our models do not fall for it.

Each test shows the trap in a model as anybody would write it, so that a release of LCE that
mends it is noticed, and our model of the same network beside it.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.run_model import load_interpreter

RNG = np.random.default_rng(17)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, np.float32(1), np.float32(-1))
FLOAT = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
# Half a per cent off ±1 here and there, but not in the tap that LCE looks at.
NEARLY = SIGNS * np.where(RNG.random(SIGNS.shape) < 0.5, np.float32(1.004), np.float32(1))
ONE_ZERO = SIGNS.copy()
ONE_ZERO[3, 2, 1, 1] = 0
OTHER = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, np.float32(1), np.float32(-1))
WEIGHTS = {"float": FLOAT, "binary": SIGNS, "other": OTHER, "nearly": NEARLY, "one_zero": ONE_ZERO}

# What a Keras model says, and what LCE makes of it: each name is one model.
_MODELS = """
import sys
import larq, larq_compute_engine, numpy, tensorflow as tf
weights = numpy.load(sys.argv[1])

def write(name, entry, x):
    content = larq_compute_engine.convert_keras_model(tf.keras.Model(entry, x))
    open(f"{sys.argv[2]}/{name}.tflite", "wb").write(content)

def conv(x, weight, strides=1, padding="valid", dilation=1):
    layer = tf.keras.layers.Conv2D(8, 3, strides=strides, padding=padding, use_bias=False,
                                   dilation_rate=dilation)
    x = layer(x)
    layer.set_weights([weights[weight].transpose(2, 3, 1, 0)])
    return x

def sign(x):
    return tf.where(x >= 0, 1.0, -1.0)

for kind in ("float", "binary"):
    for size in (8, 9):
        entry = tf.keras.layers.Input((size, size, 4))
        x = tf.keras.layers.ZeroPadding2D(1)(sign(entry) if kind == "binary" else entry)
        write(f"{kind}_padded_{size}", entry, conv(x, kind, strides=2))
for size in (1, 2, 3):
    entry = tf.keras.layers.Input((size, size, 4))
    write(f"same_{size}", entry, conv(sign(entry), "binary", padding="same"))
entry = tf.keras.layers.Input((8, 8, 4))
x = conv(sign(entry), "binary")
write("plain", entry, x)
factors = {
    "per_channel": numpy.linspace(0.5, 2, 8).reshape(8),
    "rank_4": numpy.linspace(0.5, 2, 8).reshape(1, 1, 1, 8),
    "per_place": numpy.linspace(0.5, 2, 36).reshape(1, 6, 6, 1),
}
for name, factor in factors.items():
    write(name, entry, x * tf.constant(factor, tf.float32))
entry = tf.keras.layers.Input((8, 8, 4))
signs = sign(entry)
both = [conv(signs, "binary", dilation=2), conv(signs, "other", dilation=2)]
write("two_dilated", entry, both[0] + both[1])
entry = tf.keras.layers.Input((8, 8, 4))
write("one_dilated", entry, conv(sign(entry), "binary", dilation=2))
for weight in ("nearly", "one_zero"):
    entry = tf.keras.layers.Input((8, 8, 4))
    write(weight, entry, conv(sign(entry), weight))
"""


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """by_hand(name): the .tflite of that model."""
    folder = tmp_path_factory.mktemp("traps")
    np.savez(folder / "weights.npz", **WEIGHTS)
    subprocess.run(
        [sys.executable, "-c", _MODELS, str(folder / "weights.npz"), str(folder)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return lambda name: folder / f"{name}.tflite"


def run(path, x, kernel: str = "indirect"):
    """What a file computes, NCHW in and out."""
    interpreter = load_interpreter(path.read_bytes(), kernel=kernel, use_xnnpack=False)
    (output,) = interpreter.predict([np.ascontiguousarray(x.transpose(0, 2, 3, 1))])
    return output.transpose(0, 3, 1, 2)


def operators(path) -> list[str]:
    return [node.name for node in read_tflite(path).operators]


def maps(size: int):
    return RNG.standard_normal((1, 4, size, size)).astype(np.float32)


@pytest.mark.parametrize("kind", ["float", "binary"])
def test_padding_by_1_at_stride_2_becomes_same_which_pads_otherwise(
    kind, by_hand, make_graph, run_graph, write_lce
) -> None:
    # LCE turns ((1, 1), (1, 1)) and VALID into SAME: wrong on an even map, right on an odd one.
    sign = "Sign" if kind == "binary" else "Identity"
    for size, is_wrong in ((8, True), (9, False)):
        graph = make_graph(
            f"g (float[1,4,{size},{size}] x) => (y) {{"
            f" s = {sign}(x)  y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w) }}",
            w=WEIGHTS[kind],
        )
        x = maps(size)
        expected = run_graph(graph, x)
        path = by_hand(f"{kind}_padded_{size}")
        assert np.allclose(run(path, x), expected, atol=1e-4) is not is_wrong
        written = write_lce(graph)
        np.testing.assert_allclose(written.execute(x).outputs, expected, atol=1e-4)
        assert "PAD" not in operators(written.files["model"])


def test_a_constant_that_is_not_of_rank_1_ends_the_interpreter(by_hand) -> None:
    run(by_hand("per_channel"), maps(8))
    code = (
        "import sys, pathlib; from bibench_deploy.targets.lce.run_model import load_interpreter; "
        "load_interpreter(pathlib.Path(sys.argv[1]).read_bytes())"
    )
    for name in ("rank_4", "per_place"):
        result = subprocess.run(
            [sys.executable, "-c", code, str(by_hand(name))],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode != 0
        assert "post_activation_multiplier" in result.stderr


def test_a_map_of_shares_behind_a_padded_average_of_a_binary_layer_runs(
    make_graph, run_graph, write_lce
) -> None:
    # The mean over fewer numbers at the edge is a factor per place: it must not be fused.
    graph = make_graph(
        """g (float[1,4,8,8] x) => (y) { s = Sign(x)  c = Conv<pads=[1,1,1,1]>(s, w)
            y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(c) }""",
        w=SIGNS,
    )
    x, written = maps(8), write_lce(graph)
    assert operators(written.files["model"])[-2:] == ["AVERAGE_POOL_2D", "MUL"]
    np.testing.assert_allclose(written.execute(x).outputs, run_graph(graph, x), rtol=1e-6)


@pytest.mark.parametrize(("size", "is_wrong"), [(1, True), (2, True), (3, False)])
def test_zero_padding_of_a_map_smaller_than_the_kernel_is_wrong(
    size, is_wrong, by_hand, make_graph, run_graph, write_lce
) -> None:
    graph = make_graph(
        f"g (float[1,4,{size},{size}] x) => (y) {{ s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w) }}",
        w=SIGNS,
    )
    x = maps(size)
    expected = run_graph(graph, x)
    for kernel in ("indirect", "default"):
        path = by_hand(f"same_{size}")
        assert np.array_equal(run(path, x, kernel), expected) is not is_wrong
        written = write_lce(graph)
        np.testing.assert_array_equal(run(written.files["model"], x, kernel), expected)
    np.testing.assert_array_equal(run(by_hand(f"same_{size}"), x, "reference"), expected)


def test_weights_that_are_nearly_binary_are_made_binary(by_hand, make_graph, run_graph) -> None:
    graph = make_graph("g (float[1,4,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=NEARLY)
    x = maps(8)
    path = by_hand("nearly")
    assert operators(path) == ["LceQuantize", "LceBconv2d"]
    assert np.abs(run(path, x) - run_graph(graph, x)).max() > 1e-3
    # Two magnitudes in one channel are no binary layer: the sign is left over, and said to be.
    assert TARGET.refusals(graph) != []


def test_one_zero_weight_makes_a_layer_float(by_hand, make_graph, run_graph, write_lce) -> None:
    assert operators(by_hand("plain")) == ["LceQuantize", "LceBconv2d"]
    assert "CONV_2D" in operators(by_hand("one_zero"))
    graph = make_graph("g (float[1,4,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=ONE_ZERO)
    x, written = maps(8), write_lce(graph)
    assert operators(written.files["model"]) == ["CONCATENATION", "LceQuantize", "LceBconv2d"]
    np.testing.assert_array_equal(written.execute(x).outputs, run_graph(graph, x))


def test_two_dilated_layers_on_one_sign_become_float(
    by_hand, make_graph, run_graph, write_lce
) -> None:
    assert operators(by_hand("one_dilated")) == ["LceQuantize", "LceBconv2d"]
    assert "LceBconv2d" not in operators(by_hand("two_dilated"))
    graph = make_graph(
        """g (float[1,4,8,8] x) => (y) { s = Sign(x)  a = Conv<dilations=[2,2]>(s, v)
            b = Conv<dilations=[2,2]>(s, w)  y = Add(a, b) }""",
        v=SIGNS,
        w=OTHER,
    )
    x, written = maps(8), write_lce(graph)
    assert operators(written.files["model"]).count("LceBconv2d") == 2
    np.testing.assert_array_equal(written.execute(x).outputs, run_graph(graph, x))


@pytest.mark.parametrize("threshold", [0.0, 4.0, -2.0])
def test_sums_on_the_threshold_of_a_strict_comparison_keep_their_sign(
    threshold, make_graph, run_graph, write_lce
) -> None:
    """LCE folds the number of terms into an offset, where −2^-126 and the last bit are lost."""
    model = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            n = Less(x, zero)  s = Where(n, minus, one)  a = Conv<pads=[1,1,1,1]>(s, w)
            g = Greater(a, t)  u = Where(g, one, minus)  y = Conv<pads=[1,1,1,1]>(u, v) }""",
        w=SIGNS, v=np.concatenate([OTHER, SIGNS], axis=1),
        zero=0.0, one=1.0, minus=-1.0, t=threshold,
    )  # fmt: skip
    x = maps(8)
    written = write_lce(model)
    np.testing.assert_array_equal(written.execute(x).outputs, run_graph(model, x))
