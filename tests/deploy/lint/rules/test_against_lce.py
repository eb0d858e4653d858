"""What becomes of a network that lint finds an error in, where nobody refuses it.

Each error-level rule has a network that breaks it, which is given to the real converter all
the same: it fails, leaves a float layer where a binary one was meant, or runs float
operators over the whole map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bibench_deploy import targets
from bibench_deploy.errors import ConversionError
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.rules import load_all
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite

RNG = np.random.default_rng(5)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ARRAYS = {
    "w": signs(8, 4, 3, 3), "f": RNG.standard_normal((8, 4, 3, 3)), "t": signs(4, 8, 2, 2),
    "grouped": signs(66, 2, 3, 3), "each": signs(33, 1, 3, 3),
    "rows": np.linspace(0.5, 2, 6).reshape(6, 1),
    "f_volume": RNG.standard_normal((8, 4, 1, 3, 3)), "axes": np.array([1, 2, 3]),
    "channel": np.array([1]), "two": np.array([2]), "deep": np.array([1, 2, 1, 1], np.float32),
}  # fmt: skip
MAP = "g (float[1,4,8,8] x) => (y) {{ {} }}"
FLOAT_LAYERS = {"CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}

# Rule: (graph, nodes from x to y, float operators of the file that the same without the defect
# has not, or else what is said when the converter fails).
FALLS_BACK = {
    "float-weights-on-signs": (MAP, "s = PlusMinus(x)  y = Conv(s, f)", ["CONV_2D"]),
    "changed-signs": (
        MAP, "s = PlusMinus(x)  n = Neg(s)  c = Concat<axis=3>(s, n)  y = Conv(c, w)", ["CONV_2D"]),
    "transposed-convolution": (
        MAP, "s = PlusMinus(x)  y = ConvTranspose(s, t)", ["TRANSPOSE_CONV"]),
    "scale-granularity": (MAP, "s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, rows)", ["MUL"]),
    "activation-rescaling": (
        MAP, "a = Abs(x)  k = ReduceMean(a, axes)  s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, k)",
        ["MEAN", "MUL"]),
    "groups": (
        "g (float[1,66,8,8] x) => (y) {{ {} }}", "s = PlusMinus(x)  y = Conv<group=33>(s, grouped)",
        ["STRIDED_SLICE", "CONCATENATION"]),
    "depthwise": (
        "g (float[1,33,8,8] x) => (y) {{ {} }}", "s = PlusMinus(x)  y = Conv<group=33>(s, each)",
        ["STRIDED_SLICE", "CONCATENATION"]),
}  # fmt: skip
FAILS = {
    "unsupported-operator": (MAP, "y = Trilu(x)"),
    "operator-form": (
        MAP, "p, i = MaxPool<kernel_shape=[2,2]>(x)  j = Cast<to=1>(i)  y = Add(j, p)"),
    "computed-parameter": ("g (float[4,4,1,1] x) => (y) {{ {} }}", "a = Tanh(x)  y = Conv(x, a)"),
    "tensor-type": (MAP, "a = Cast<to=10>(x)  y = Cast<to=1>(a)"),
    "volume": (
        "g (float[1,4,8,8] x) => (y) {{ {} }}", "u = Unsqueeze(x, two)  y = Conv(u, f_volume)"),
    "scale-before-layer": (
        MAP,
        "a = Abs(x)  k = ReduceMean(a, channel)  s = PlusMinus(x)  m = Mul(s, k)  y = Conv(m, w)"),
    "several-inputs": ("g (float[1,4,8,8] x, float[1,4,8,8] z) => (y) {{ {} }}", "y = Add(x, z)"),
}  # fmt: skip


def refused_for(graph) -> set[str]:
    found = lint_graph(graph, TARGET).findings
    return {finding.rule for finding in found if finding.severity is Severity.ERROR}


@pytest.mark.parametrize("rule", FALLS_BACK)
def test_the_real_engine_falls_back_to_float_without_the_rule(rule, make_graph, write_lce) -> None:
    text, nodes, operators = FALLS_BACK[rule]
    graph = make_graph(text.format(nodes), **ARRAYS)
    assert rule in refused_for(graph)
    written = write_lce(graph)
    names = [node.name for node in read_tflite(written.files["model"]).operators]
    assert set(operators) <= set(names)
    # Either no binary layer is left, or operators of float run behind or around it.
    assert ("LceBconv2d" not in names) == bool(FLOAT_LAYERS & set(operators))
    if rule in ("depthwise", "groups"):
        assert names.count("LceBconv2d") == 33


def test_the_same_without_a_defect_is_one_binary_layer(make_graph, write_lce) -> None:
    graph = make_graph(MAP.format("s = PlusMinus(x)  y = Conv(s, w)"), **ARRAYS)
    assert refused_for(graph) == set()
    names = [node.name for node in read_tflite(write_lce(graph).files["model"]).operators]
    assert names == ["LceQuantize", "LceBconv2d"]


@pytest.mark.parametrize("rule", FAILS)
def test_the_real_converter_fails_without_the_rule(rule, make_graph, write_lce) -> None:
    text, nodes = FAILS[rule]
    graph = make_graph(text.format(nodes), **ARRAYS)
    assert rule in refused_for(graph)
    with pytest.raises(ConversionError):
        write_lce(graph)


def test_an_operator_of_another_domain_is_taken_for_the_one_that_it_is_called_like(
    make_proto, write_lce, tmp_path
) -> None:
    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(proto, tmp_path / "foreign.onnx")
    graph = load_graph(tmp_path / "foreign.onnx")
    assert refused_for(graph) == {"unknown-domain"}
    written = write_lce(graph)
    assert [node.name for node in read_tflite(written.files["model"]).operators] == ["RELU"]


def test_a_single_number_cannot_be_compared(make_graph, write_lce) -> None:
    graph = make_graph(MAP.format("y = ReduceMean<keepdims=0>(x)"), **ARRAYS)
    assert refused_for(graph) == {"rank"}
    written = write_lce(graph)
    with pytest.raises(ValueError, match="zero-dimensional"):
        written.execute(np.ones((1, 4, 8, 8), np.float32))


def test_of_two_outputs_one_is_proved(make_graph, write_lce) -> None:
    text = "g (float[1,4,8,8] x) => (y, z) { z = Sigmoid(x)  y = Relu(x) }"
    graph = make_graph(text, **ARRAYS)
    assert refused_for(graph) == {"several-outputs"}
    written = write_lce(graph)
    assert len(read_tflite(written.files["model"]).outputs) == 2
    assert written.execute(np.ones((1, 4, 8, 8), np.float32)).outputs.shape == (1, 4, 8, 8)


def test_weights_that_are_no_numbers_give_none(make_graph, write_lce) -> None:
    weight = np.full((8, 4, 3, 3), np.nan)
    graph = make_graph("g (float[1,4,8,8] x) => (y) { y = Conv(x, broken) }", broken=weight)
    assert refused_for(graph) == {"not-finite"}
    outputs = write_lce(graph).execute(np.ones((1, 4, 8, 8), np.float32)).outputs
    # XNNPACK gives the largest number there is, other kernels none.
    assert not (np.abs(outputs) < 1e30).any()


def test_a_zero_that_one_bit_cannot_hold_becomes_plus_one(make_graph, write_lce, run_graph) -> None:
    graph = make_graph(MAP.format("s = Sign(x)  y = Conv(s, w)"), **ARRAYS)
    assert refused_for(graph) == {"sign-of-zero"}
    zeros, ones = (np.full((1, 4, 8, 8), number, np.float32) for number in (0, 1))
    written = write_lce(graph)
    np.testing.assert_array_equal(written.execute(zeros).outputs, written.execute(ones).outputs)
    assert not run_graph(graph, zeros).any()
    assert run_graph(graph, ones).any()


def test_every_rule_that_lce_refuses_by_is_here() -> None:
    folder = Path(targets.__file__).parent
    names = ("_unfused_scales.py", "_graph_refusals.py", "lce/capabilities.py")
    sources = [folder / name for name in names]
    text = "".join(path.read_text() for path in sources)
    shown = {
        *FALLS_BACK,
        *FAILS,
        "unknown-domain",
        "rank",
        "several-outputs",
        "not-finite",
        "sign-of-zero",
    }
    named = {rule.name for rule in load_all() if f'"{rule.name}"' in text}
    # A size that is known only at run time has ended in load_graph.
    assert named - {"dynamic-shape"} == shown
