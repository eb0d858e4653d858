"""Every translation, through LCE's real converter and interpreter, against ONNX Runtime."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.keras_model import WINDOWS
from bibench_deploy.verify.parity import Observation, compare, seeded_inputs

RNG = np.random.default_rng(13)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ARRAYS = {
    "w0": signs(8, 4, 3, 3),
    "w3": signs(8, 8, 3, 3),
    "w1": signs(16, 8, 1, 1),
    "w1s": signs(8, 8, 1, 1),
    "w5": signs(8, 8, 5, 5),
    "w35": signs(8, 8, 3, 5),
    "scaled": signs(8, 8, 3, 3) * RNG.uniform(0.1, 1, (8, 1, 1, 1)),
    "f3": RNG.standard_normal((6, 8, 3, 3)),
    "f7": RNG.standard_normal((6, 8, 7, 7)),
    "f1": RNG.standard_normal((8, 8, 1, 1)),
    "depth": RNG.standard_normal((8, 1, 3, 3)),
    "fb": RNG.standard_normal(6),
    "c": RNG.standard_normal((8, 1, 1)),
    "c4": RNG.uniform(0.5, 2, (1, 8, 1, 1)),
    "big": 50.0, "k": 0.7, "low": -0.5, "high": 0.8, "zero": 0.0, "six": 6.0,
    "slopes": RNG.standard_normal((8, 1, 1)), "slope": 0.3,
    "gamma": RNG.standard_normal(8), "beta": RNG.standard_normal(8),
    "mu": RNG.standard_normal(8), "var": RNG.uniform(0.5, 2, 8),
    "flat": np.array([1, -1]), "hw": np.array([2, 3]), "wh": np.array([-1, -2]),
    "v": RNG.standard_normal((5, 512)), "vb": RNG.standard_normal(5), "one": [0.5],
    "vs": signs(5, 512),
    "vt": RNG.standard_normal((512, 5)),
    "g": RNG.standard_normal((5, 8)),
    "gs": signs(5, 8) * 0.5, "gst": signs(8, 5), "c2": RNG.standard_normal(8),
    "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}  # fmt: skip

# Name: nodes from a map h [1, 8, 8, 8] to y.
MAPS = {
    "float convolution": "y = Conv<pads=[1,1,1,1]>(h, f3)",
    "float convolution with bias": "y = Conv<pads=[1,1,1,1]>(h, f3, fb)",
    "float convolution, stride 2": "y = Conv<pads=[1,1,1,1], strides=[2,2]>(h, f3, fb)",
    "float convolution 7×7, stride 2": "y = Conv<pads=[3,3,3,3], strides=[2,2]>(h, f7)",
    "float convolution padded explicitly": "y = Conv<pads=[2,0,1,3]>(h, f3)",
    "float convolution, stride 2, uneven pads": "y = Conv<pads=[1,0,0,2], strides=[2,2]>(h, f3)",
    "float convolution, dilated": "y = Conv<pads=[2,2,2,2], dilations=[2,2]>(h, f3)",
    "float shortcut 1×1, stride 2": "y = Conv<strides=[2,2]>(h, f1)",
    "depthwise convolution": "y = Conv<pads=[1,1,1,1], group=8>(h, depth)",
    "depthwise convolution, stride 2": "y = Conv<pads=[1,1,1,1], strides=[2,2], group=8>(h, depth)",
    "binary convolution": "s = Sign(h)  y = Conv<pads=[1,1,1,1]>(s, w3)",
    "binary convolution without padding": "s = Sign(h)  y = Conv(s, w3)",
    "binary convolution with factors": "s = Sign(h)  y = Conv<pads=[1,1,1,1]>(s, scaled, beta)",
    "binary convolution behind a Pad": "s = Sign(h)  p = Pad(s, amounts)  y = Conv(p, w3)",
    "binary convolution 3×5": "s = Sign(h)  y = Conv<pads=[1,2,1,2]>(s, w35)",
    "binary convolution 5×5": "s = Sign(h)  y = Conv<pads=[2,2,2,2]>(s, w5)",
    "binary convolution, dilated": "s = Sign(h)  y = Conv<pads=[2,2,2,2], dilations=[2,2]>(s, w3)",
    "binary shortcut 1×1, stride 2": "s = Sign(h)  y = Conv<strides=[2,2]>(s, w1)",
    "binary convolution and batch norm": """
        s = Sign(h)  b = Conv<pads=[1,1,1,1]>(s, w3)
        y = BatchNormalization<epsilon=0.001>(b, gamma, beta, mu, var)""",
    "batch norm": "y = BatchNormalization<epsilon=0.001>(h, gamma, beta, mu, var)",
    "max pooling 2/2": "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h)",
    "max pooling 3/2/1": "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(h)",
    "max pooling 3/1/1": "y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(h)",
    "max pooling 1/2": "y = MaxPool<kernel_shape=[1,1], strides=[2,2]>(h)",
    "average pooling": "y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(h)",
    "average pooling of all but an edge": "y = AveragePool<kernel_shape=[3,3], strides=[2,2]>(h)",
    "global average": "y = GlobalAveragePool(h)",
    "mean of height and width": "y = ReduceMean<keepdims=0>(h, hw)",
    "mean that keeps its dimensions": "y = ReduceMean<keepdims=1>(h, wh)",
    "concatenation": "r = Relu(h)  y = Concat<axis=1>(h, r)",
    "flattened map, fully connected": "f = Flatten(h)  y = Gemm<transB=1>(f, v, vb)",
    "reshaped map, fully connected": "f = Reshape(h, flat)  y = Gemm<transB=1>(f, v, one)",
    "flattened map, product": "f = Flatten(h)  y = MatMul(f, vt)",
    "fully connected": "p = GlobalAveragePool(h)  f = Flatten(p)  y = Gemm<transB=1>(f, g)",
    "flattened map, binary fully connected": """
        b = Mul(h, c)  f = Flatten(b)  s = Sign(f)  y = Gemm<transB=1>(s, vs)""",
    "binary fully connected": """
        p = GlobalAveragePool(h)  f = Flatten(p)  s = Sign(f)  y = Gemm<transB=1>(s, gs, vb)""",
    "binary product": """
        p = ReduceMean<keepdims=0>(h, hw)  a = Sub(p, c2)  s = Sign(a)  y = MatMul(s, gst)""",
    "constant behind a binary convolution and a Relu": """
        s = Sign(h)  b = Conv<pads=[1,1,1,1]>(s, w3)  r = Relu(b)  y = Mul(r, c)""",
    "binary block with a binary shortcut": """
        s = Sign(h)  a = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)  b = Conv<strides=[2,2]>(s, w1s)
        y = Add(a, b)""",
    "binary shortcut of uneven strides": "s = Sign(h)  y = Conv<strides=[1,2]>(s, w1)",
    "binary convolution that leaves out an edge": "s = Sign(h)  y = Conv<strides=[2,2]>(s, w3)",
    "two layers on one sign": """
        s = Sign(h)  a = Conv<pads=[1,1,1,1]>(s, w3)  b = Conv<pads=[1,1,1,1]>(s, scaled)
        y = Add(a, b)""",
}  # fmt: skip

# The same where turning a map changes nothing: one number in, one number out.
POINTS = {
    "Relu": "y = Relu(h)",
    "clip": "y = Clip(h, low, high)",
    "clip at zero": "y = Clip(h, zero, six)",
    "clip from below": "y = Clip(h, low)",
    "clip from zero": "y = Clip(h, zero)",
    "clip from above": "y = Clip(h, , high)",
    "PRelu": "y = PRelu(h, slopes)",
    "PRelu of one slope": "y = PRelu(h, slope)",
    "PRelu of a row": "p = ReduceMean<keepdims=0>(h, hw)  y = PRelu(p, c2)",
    "Sigmoid": "y = Sigmoid(h)",
    "Softmax": "p = ReduceMean<keepdims=0>(h, hw)  y = Softmax<axis=1>(p)",
    "Add of two maps": "r = Relu(h)  y = Add(h, r)",
    "Add of a constant": "y = Add(h, c)",
    "Add to a constant": "y = Add(c, h)",
    "Sub of two maps": "r = Relu(h)  y = Sub(r, h)",
    "Sub of a constant": "y = Sub(h, c)",
    "Sub from a constant": "y = Sub(c, h)",
    "Mul by a constant": "y = Mul(h, c4)",
    "Mul of a constant": "y = Mul(k, h)",
    "Mul of a map by its means": "p = GlobalAveragePool(h)  q = Sigmoid(p)  y = Mul(h, q)",
    "Div by a constant": "y = Div(h, c4)",
    "Div of a constant": "a = Add(h, big)  y = Div(c, a)",
    "Div of two maps": "a = Add(h, big)  y = Div(h, a)",
}

# A strided binary layer on an even map turns the network; on an odd map it does not.
ENTRIES = {
    "plain": ("g (float[1,4,8,8] x) => (y) {{ i = PlusMinus(x)"
              "  n = Conv<pads=[1,1,1,1]>(i, w0)  m = Mul(n, k)"
              "  h = Add(m, low)  {} }}"),
    "rotated": ("g (float[1,4,16,16] x) => (y) {{ i = PlusMinus(x)"
                "  n = Conv<pads=[1,1,1,1], strides=[2,2]>(i, w0)  m = Mul(n, k)"
                "  h = Add(m, low)  {} }}"),
}  # fmt: skip


def prove(graph, write_lce) -> None:
    assert TARGET.refusals(graph) == []
    written = write_lce(graph)
    inputs = seeded_inputs(tuple(graph.graph.inputs[0].shape), 3, 0)
    seen = written.execute(inputs)
    layers = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
    parity = compare(graph, inputs, Observation(seen.outputs, layers), "LCE")
    assert parity.unexplained_flips == 0
    assert seen.outputs.shape[1:] == tuple(graph.graph.outputs[0].shape)[1:]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("form", MAPS)
def test_an_operator_computes_what_onnx_runtime_computes(
    form, entry, make_graph, write_lce
) -> None:
    prove(make_graph(ENTRIES[entry].format(MAPS[form]), **ARRAYS), write_lce)


@pytest.mark.parametrize("form", POINTS)
def test_an_operator_on_single_numbers_computes_what_onnx_runtime_computes(
    form, make_graph, write_lce
) -> None:
    prove(make_graph(ENTRIES["rotated"].format(POINTS[form]), **ARRAYS), write_lce)


def test_every_window_is_among_these_forms() -> None:
    text = "  ".join([*MAPS.values(), *POINTS.values(), *ENTRIES.values()])
    assert [name for name in WINDOWS if f"= {name}" not in text] == []


def test_a_network_on_rows_needs_no_map(make_graph, write_lce) -> None:
    prove(
        make_graph(
            """g (float[1,8] x) => (y) {
                a = Gemm<transB=1>(x, m, c2)  r = PRelu(a, c2)  s = Sign(r)
                [hidden] b = Gemm<transB=1>(s, n)  c = Add(b, c2)  y = Softmax(c) }""",
            m=RNG.standard_normal((8, 8)),
            n=signs(8, 8),
            c2=ARRAYS["c2"],
        ),
        write_lce,
    )


def test_an_odd_map_and_an_even_one_fit_in_one_network(make_graph, write_lce) -> None:
    # 17 → 9 → 5 → 3: every size is odd; then 16 → 8 → 4 beside it.
    text = """g (float[1,4,{0},{0}] x) => (y) {{
        i = PlusMinus(x)  a = Conv<pads=[1,1,1,1], strides=[2,2]>(i, w0)  b = Add(a, low)
        s = Sign(b)  q = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)  d = Mul(q, k)
        e = Conv<strides=[2,2]>(b, f1)  h = Add(d, e)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(h) }}"""
    for size in (16, 17, 32, 33):
        prove(make_graph(text.format(size), **ARRAYS), write_lce)


def test_nodes_of_any_name_become_layers(make_graph, write_lce) -> None:
    graph = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            a = Relu(x)  b = Sigmoid(x)  c = Add(a, b)  s = Sign(c)  y = Conv(s, w0) }""",
        w0=ARRAYS["w0"],
    )
    for node, name in zip(graph.graph, ["/a b/ü", "/a b:ü", "_."], strict=False):
        node.name = name
    prove(graph, write_lce)


_SUMMARY = """
import json, sys
sys.modules["bibench_deploy"] = sys.modules["bibench_train"] = None
import larq, tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1])
rows = larq.models.ModelProfile(model)
larq.models.summary(model)
print(json.dumps({
    "layers": [
        [profile._layer.name, [int(weight.bitwidth) for weight in profile.weight_profiles]]
        for profile in rows.layer_profiles if profile.weight_profiles
    ],
    "shape": model.output_shape,
    "custom": sorted(type(layer).__module__.split(".")[0] for layer in model.layers),
}))
"""


def test_larqs_summary_counts_every_binary_layer_as_1_bit(converted, tmp_path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _SUMMARY, str(converted.written.files["keras"])],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    seen = json.loads(result.stdout.splitlines()[-1])
    layers = dict(seen["layers"])
    assert [layers[name] for name in ("first", "second", "third")] == [[1], [1], [1]]
    others = {
        name: bits for name, bits in layers.items() if name not in ("first", "second", "third")
    }
    assert all(set(bits) <= {32} for bits in others.values())
    assert set(seen["custom"]) <= {"larq", "tf_keras", "keras"}
    assert "1-bit" in result.stdout
