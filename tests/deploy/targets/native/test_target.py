"""Whole graphs: what is written, and that it computes what the source computes, sign by sign."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from bibench_deploy import export_model
from bibench_deploy.errors import ConversionError, LoweringError
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.load import load_graph
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.native import TARGET, library
from bibench_deploy.targets.native.layers import resident_layers
from bibench_deploy.targets.native.target import with_own_operators
from bibench_deploy.targets.onnx.run_model import load_session
from bibench_deploy.verify.parity import Comparison, Observation, Parity, seeded_inputs
from bibench_train import algorithms
from bibench_train.layers import BinaryConv2d
from tests.deploy.geometries import signs

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


ARRAYS = {
    "f": numbers(16, 3, 3, 3) / 3,
    "w": signs((16, 16, 3, 3), 1) * 0.25,
    "v": signs((16, 16, 3, 3), 2),
    "wide": signs((40, 16, 3, 3), 3),
    "halves": np.full(40, 0.5),
    "odd": signs((5, 40, 2, 2), 4),
    "grouped": signs((16, 4, 3, 3), 4),
    "one": signs((16, 16, 1, 1), 5),
    "o": numbers(16, 16, 1, 1) / 4,
    "flat": signs((12, 1024), 6),
    "rows": signs((12, 24), 7),
    "columns": np.ascontiguousarray(signs((12, 24), 7).T),
    "row": signs((16, 3, 3), 8),
    "zeros": np.where(RNG.random((16, 16, 3, 3)) < 0.1, 0, signs((16, 16, 3, 3), 9)),
    "grouped_zeros": np.where(RNG.random((16, 4, 3, 3)) < 0.1, 0, signs((16, 4, 3, 3), 9)),
    "gamma": RNG.uniform(0.5, 2, 16),
    "beta": numbers(16),
    "mean": numbers(16),
    "variance": RNG.uniform(0.5, 2, 16),
    "slope": RNG.uniform(0.1, 0.5, (16, 1, 1)),
    "shift": numbers(1, 16, 1, 1) / 4,
    "after": numbers(1, 16, 1, 1) / 4,
    "low": -1.0,
    "high": 1.0,
    "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "zero": 0.0,
    "plus": 1.0,
    "minus": -1.0,
    "place": RNG.uniform(0.5, 2, (8, 8)),
    "k": RNG.uniform(0.5, 2, (16, 1, 1)),
    "c_axes": np.array([1]),
    "map_axes": np.array([2, 3]),
}
STEM = "a = Conv<pads=[1,1,1,1]>(x, f)  "
BN = "BatchNormalization({}, gamma, beta, mean, variance)"
PADDED = "Conv<pads=[1,1,1,1]>"
MAP = "g (float[1,3,8,8] x) => (y) {{ {} }}"
NETWORKS = {
    "one layer": STEM + f"s = Sign(a)  c = {PADDED}(s, w)  y = Relu(c)",
    "a chain of layers": STEM
    + f"s = Sign(a)  c = {PADDED}(s, w)  n = {BN.format('c')}  t = Sign(n)  y = {PADDED}(t, v)",
    "a residual block": STEM
    + f"h = Clip(a, low, high)  s = Sign(h)  c = {PADDED}(s, w)  n = {BN.format('c')}  t = Sign(n) "
    f"d = {PADDED}(t, v)  m = {BN.format('d')}  p = Add(m, h)  q = Clip(p, low, high)  u = Sign(q) "
    f"e = {PADDED}(u, w)  r = Add(e, q)  y = ReduceMean(r, map_axes)",
    "ReActNet's signs and PReLUs": STEM
    + f"b = Add(a, shift)  s = Sign(b)  c = {PADDED}(s, w)  n = {BN.format('c')}  p = Add(n, a) "
    f"i = Add(p, shift)  j = PRelu(i, slope)  k0 = Add(j, after)  l = Add(k0, shift)  t = Sign(l) "
    f"d = {PADDED}(t, v)  z = Add(d, k0)  y = Relu(z)",
    "a strided layer with a float shortcut": STEM
    + f"s = Sign(a)  c = Conv<strides=[2,2],pads=[1,1,1,1]>(s, w)  n = {BN.format('c')} "
    "h = Conv<strides=[2,2]>(a, o)  p = Add(n, h)  t = Sign(p)  d = Conv(t, v)  y = Neg(d)",
    "a strided layer with a binary shortcut": STEM
    + f"s = Sign(a)  c = Conv<strides=[2,2],pads=[1,1,1,1]>(s, w)  n = {BN.format('c')} "
    f"h = Conv<strides=[2,2]>(s, one)  m = {BN.format('h')}  p = Add(n, m)  y = Tanh(p)",
    "pooling between layers": STEM
    + f"s = Sign(a)  c = {PADDED}(s, w)  p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(c) "
    f"n = {BN.format('p')}  t = Sign(n)  y = Conv(t, v)",
    "odd channels": STEM + "s = Sign(a)  c = Conv(s, wide, halves)  t = Sign(c)  y = Conv(t, odd)",
    "groups": STEM + "s = Sign(a)  y = Conv<group=4, dilations=[2,1]>(s, grouped)",
    "zero weights": STEM + f"s = Sign(a)  c = {PADDED}(s, zeros)  y = Relu(c)",
    "zero weights in groups": STEM + "s = Sign(a)  y = Conv<group=4>(s, grouped_zeros)",
    "padding with +1": STEM + "s = Sign(a)  p = Pad(s, around, plus)  c = Conv(p, w)  y = Relu(c)",
    "padding with -1": STEM + "s = Sign(a)  p = Pad(s, around, minus)  c = Conv(p, w)  y = Relu(c)",
    "a flattened layer": STEM + "s = Sign(a)  r = Flatten(s)  y = Gemm<transB=1>(r, flat)",
    "shared signs": STEM
    + f"s = Sign(a)  c = {PADDED}(s, w)  d = {PADDED}(s, v)  p = Add(c, d)  y = Relu(p)",
    "signs that something else reads": STEM + f"s = Sign(a)  c = {PADDED}(s, w)  y = Add(c, s)",
    "a graph that gives what a layer gives": STEM + f"s = Sign(a)  y = {PADDED}(s, w)",
}
UNFUSED = {
    "a factor for each place": STEM
    + f"s = Sign(a)  c = {PADDED}(s, w)  d = Mul(c, place)  n = {BN.format('d')}  t = Sign(n) "
    "y = Conv(t, v)",
    "a factor of the input": STEM
    + f"s = Sign(a)  b = Abs(a)  i = ReduceMean(b, c_axes)  c = {PADDED}(s, w)  d = Mul(c, i) "
    "e = Mul(d, k)  y = Relu(e)",
}


def used(text: str) -> dict[str, Any]:
    """The arrays that a graph's text names."""
    words = set(re.findall(r"\w+", text))
    return {name: array for name, array in ARRAYS.items() if name in words}


@pytest.fixture
def prove(make_graph: Any, tmp_path: Path):
    """prove(text): write a graph; gives the proof and the graph that was written."""

    def run(text: str) -> tuple[Parity, ir.Model]:
        graph = make_graph(text, **used(text))
        lowered = TARGET.lower(graph)
        shape = tuple(graph.graph.inputs[0].shape)
        inputs = seeded_inputs(shape, 4, 0)
        with TARGET.open_writer() as writer:
            written = writer.write(lowered, tmp_path, WriteOptions(), graph)
        seen = written.execute(inputs)
        taken = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
        parity = Comparison(graph, inputs).with_engine(Observation(seen.outputs, taken), "native")
        np.testing.assert_array_equal(
            written.execute(inputs, wants_signs=False).outputs, seen.outputs
        )
        return parity, ir.load(written.files["model"])

    return run


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("name", [*NETWORKS, *UNFUSED])
def test_a_network_computes_what_its_source_computes(name: str, prove: Any) -> None:
    text = MAP.format({**NETWORKS, **UNFUSED}[name])
    parity, model = prove(text)
    assert parity.unexplained_flips == 0
    assert parity.max_abs_error_same_signs < 1e-4
    assert "BinaryConv" in kinds(model)
    assert not {"Where", "Less", "Sign"} & set(kinds(model)) or "else reads" in name


@pytest.mark.parametrize(
    "text",
    [
        "g (float[4,24] x) => (y) { s = PlusMinus(x)  c = Gemm<transB=1>(s, rows)  y = Relu(c) }",
        "g (float[2,5,24] x) => (y) { s = PlusMinus(x)  c = MatMul(s, columns)  y = Relu(c) }",
        "g (float[1,3,20] x) => (y) { s = Sign(x)  c = Conv<pads=[1,1]>(s, row)  y = Relu(c) }",
        "g (float[2,3,8,8] x) => (y) { a = Conv(x, f)  s = Sign(a)  c = Conv(s, w)  y = Relu(c) }",
    ],
)  # fmt: skip
def test_rows_tokens_and_batches_are_held(text: str, prove: Any) -> None:
    parity, model = prove(text)
    assert parity.unexplained_flips == 0
    assert parity.max_abs_error_same_signs < 1e-4
    assert "BinaryConv" in kinds(model)


GIVEN_TOO = {
    "the signs": ("(z, s)", f"s = Sign(a)  c = {PADDED}(s, w)  z = Relu(c)"),
    "the clip of the stem": (
        "(y, z)",
        f"y = Clip(a, low, high)  s = Sign(a)  c = {PADDED}(s, w)  z = Relu(c)",
    ),
    "a layer's numbers": (
        "(y, c, e)",
        (
            f"s = Sign(a)  c = {PADDED}(s, w)  n = {BN.format('c')}  t = Sign(n) "
            f"y = {PADDED}(t, v)  e = Clip(n, low, high)"
        ),
    ),
    "a layer's channels last": (
        "(y, z)",
        f"s = Sign(a)  c = {PADDED}(s, w)  y = Transpose<perm=[0,2,3,1]>(c)  z = Relu(c)",
    ),
    "the stem's channels last": (
        "(z, y)",
        f"s = Sign(a)  c = {PADDED}(s, w)  z = Relu(c)  y = Transpose<perm=[0,2,3,1]>(a)",
    ),
}


@pytest.mark.parametrize("name", GIVEN_TOO)
def test_whatever_a_graph_gives_keeps_its_name_and_numbers(
    name: str, make_graph: Any, prove: Any, tmp_path: Path
) -> None:
    outputs, body = GIVEN_TOO[name]
    text = f"g (float[1,3,8,8] x) => {outputs} {{ {STEM} {body} }}"
    parity, _ = prove(text)
    assert parity.unexplained_flips == 0
    source = ir.to_proto(make_graph(text, **used(text))).SerializeToString()
    written = (tmp_path / "model.onnx").read_bytes()
    feed = {"x": seeded_inputs((1, 3, 8, 8), 1, 0)}
    names = outputs.strip("()").split(", ")
    expected = load_session(source).run(names, feed)
    found = load_session(written, custom_ops_library=library()).run(names, feed)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)


@pytest.mark.parametrize(
    "body",
    [
        (
            f"s = Sign(a)  c = {PADDED}(s, w)  c_given = Tanh(c)  c_numbers = Neg(c_given) "
            "c_scale = Tanh(c_numbers)  c_packed_weights = Neg(c_scale) "
            "y = Add(c_packed_weights, a)"
        ),
        (
            f"a_numbers = Tanh(a)  s = Sign(a)  c = {PADDED}(s, w)  a_given = Add(c, a_numbers) "
            "a_packed = Tanh(a_given)  a_weights = Neg(a_packed)  y = Relu(a_weights)"
        ),
        (
            f"a_nhwc = Tanh(a)  s = Sign(a)  c = {PADDED}(s, w)  d = Add(c, a_nhwc) "
            "a_nhwc_nhwc = Tanh(d)  y = Relu(a_nhwc_nhwc)"
        ),
        # The second layer has the name of what would stand behind the first.
        (
            f"s = Sign(a)  c = {PADDED}(s, w)  n = {BN.format('c')}  p = Tanh(n)  t = Sign(p) "
            f"c_given = {PADDED}(t, v)  y = Add(c_given, p)"
        ),
    ],
)
def test_names_that_the_library_would_give_may_be_taken(body: str, prove: Any) -> None:
    parity, model = prove(MAP.format(STEM + body))
    assert parity.unexplained_flips == 0
    assert parity.max_abs_error_same_signs < 1e-4
    names = [node.name for node in model.graph]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("read", "operator"),
    [("a", "Clip({}, low, high)"), ("c", "Clip({}, low, high)"), ("c", "Relu({})"),
     ("c", "Add({}, shift)"), ("c", "PRelu({}, slope)"), ("c", BN)],
)  # fmt: skip
def test_what_only_a_branch_reads_stays(read: str, operator: str, prove: Any) -> None:
    other = "c" if read == "a" else "a"
    parity, model = prove(
        MAP.format(
            f"{STEM}  s = Sign(a)  c = {PADDED}(s, w)  r = ReduceSum<keepdims=0>(x) "
            "i = Greater(r, zero)  y = If<"
            f"then_branch = t () => (float[1,16,8,8] d) {{ d = {operator.format(read)} }},"
            f"else_branch = e () => (float[1,16,8,8] d) {{ d = Neg({other}) }}>(i)"
        )
    )
    assert parity.unexplained_flips == 0
    assert parity.max_abs_error_same_signs < 1e-4
    assert "BinaryConv" in kinds(model)


@pytest.mark.parametrize("threshold", [0.0, 4.0, -2.0])
def test_sums_on_the_threshold_of_a_strict_comparison_keep_their_sign(
    threshold: float, make_graph: Any, run_graph: Any, tmp_path: Path
) -> None:
    graph = make_graph(
        """g (float[1,16,8,8] x) => (y) {
            n = Less(x, zero)  s = Where(n, minus, plus)  a = Conv<pads=[1,1,1,1]>(s, w)
            g = Greater(a, t)  u = Where(g, plus, minus)  y = Conv<pads=[1,1,1,1]>(u, v) }""",
        w=ARRAYS["v"], v=-ARRAYS["v"], zero=0.0, plus=1.0, minus=-1.0, t=threshold,
    )  # fmt: skip
    x = seeded_inputs((1, 16, 8, 8), 1, 0)
    with TARGET.open_writer() as writer:
        written = writer.write(TARGET.lower(graph), tmp_path)
    np.testing.assert_array_equal(written.execute(x).outputs, run_graph(graph, x))


def test_an_island_of_layers_passes_on_packed_signs_alone(prove: Any) -> None:
    _, model = prove(MAP.format(NETWORKS["a residual block"]))
    assert kinds(model)[:4] == ["FloatStem", "BinaryConv", "BinaryConv", "BinaryConv"]
    stem, first, second, third = list(model.graph)[:4]
    assert [bool(value.name) for value in first.outputs] == [False, True]
    assert second.inputs[0] is first.outputs[1]
    assert second.inputs[4] is stem.outputs[0]
    assert third.inputs[0] is second.outputs[1]
    assert (second.attributes["low"].value, second.attributes["high"].value) == (-1, 1)


def test_a_shortcut_of_places_is_a_product_whose_bias_the_layer_adds(prove: Any) -> None:
    text = NETWORKS["a strided layer with a float shortcut"]
    _, model = prove(MAP.format(text))
    assert "MatMul" in kinds(model)
    assert kinds(model).count("Conv") == 0
    assert kinds(model).count("Transpose") == 1


def test_the_file_holds_no_shapes_of_machines_and_few_bytes(prove: Any, tmp_path: Path) -> None:
    _, model = prove(MAP.format(NETWORKS["a chain of layers"]))
    assert model.graph.opset_imports["bibench"] == 1
    assert model.ir_version <= 10
    sizes = {name: value.const_value.nbytes for name, value in model.graph.initializers.items()}
    assert max(sizes.values()) == 16 * 27 * 4  # the stem; a binary layer has 16 · 9 · 2 bytes
    assert (tmp_path / "model.onnx").stat().st_size < 8000


def test_a_lost_layer_fails_the_export_with_its_name(make_graph: Any) -> None:
    graph = make_graph(MAP.format(NETWORKS["one layer"]), f=ARRAYS["f"], w=ARRAYS["w"])
    lowered = TARGET.lower(graph)
    written = with_own_operators(lowered)
    (node,) = [node for node in written.graph if node.op_type == "BinaryConv"]
    packed = node.inputs[1].const_value.numpy().copy()
    packed[3, 1, 1, 0] ^= 4
    node.inputs[1].const_value = ir.tensor(packed)
    with pytest.raises(ConversionError, match=r"1 of 1 binary layers are not in the file .*\(c\)"):
        resident_layers(binary_convs(lowered), written)


def test_an_export_writes_model_and_source_and_the_proof(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bnn = algorithms.load("bnn")
    layers = [torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), BinaryConv2d(bnn, 16, 24, 3)]
    network = torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(24)).eval()
    out = tmp_path / "net"
    artifact = export_model(network, torch.zeros(1, 3, 9, 9), target="native", out=out)
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json", "model.onnx", "source.onnx",
    ]  # fmt: skip
    assert artifact.model_path == out / "model.onnx"
    assert {node.domain for node in onnx.load(out / "model.onnx").graph.node} >= {"bibench"}
    assert {node.domain for node in onnx.load(out / "source.onnx").graph.node} == {""}
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": 1, "resident": 1}
    parity = verification["parity"]["onnx_to_target"]
    assert parity["unexplained_flips"] == 0
    stem, layer = artifact.manifest["layers"]
    assert (stem["kernel"], stem["actual_bits"], stem["actual_bytes"]) == (
        "bibench.FloatStem", 32, 4 * (16 * 27 + 16),
    )  # fmt: skip
    assert (layer["kernel"], layer["fused"]) == ("bibench.BinaryConv", ["scale", "shift"])
    assert (layer["intended_bytes"], layer["actual_bytes"]) == (24 * 9 * 2, 24 * 9 * 2 + 2 * 96)


def test_the_twin_has_no_binary_layer_and_stands_in_a_folder_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(algorithms.load("bireal"), 3, 8, 3)
    network = torch.nn.Sequential(layer, torch.nn.BatchNorm2d(8)).eval()
    out = tmp_path / "net"
    export_model(network, torch.zeros(1, 3, 9, 9), target="native", out=out, baseline=True)
    assert {node.domain for node in onnx.load(out / "fp32/model.onnx").graph.node} == {""}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("g (float[1,2,4,4,4] x) => (y) { s = PlusMinus(x)  y = Conv(s, volume) }", "volume"),
        ("g (float[1,4] x, float[1,4] z) => (y) { y = Add(x, z) }", "several-inputs"),
        ("g (float[1,4] x) => (float[1,4] y) { y = elsewhere.Foo(x) }", "unknown-domain"),
        (MAP.format(UNFUSED["a factor for each place"]), "scale-granularity"),
        (MAP.format(UNFUSED["a factor of the input"]), "activation-rescaling"),
    ],
)  # fmt: skip
def test_what_is_refused_names_its_rule(
    text: str, rule: str, make_proto: Any, tmp_path: Path
) -> None:
    volume = {"volume": signs((2, 2, 3, 3, 3))} if "volume" in text else {}
    proto = make_proto(text, **used(text), **volume)
    if "elsewhere" in text:
        proto.opset_import.add(domain="elsewhere", version=1)
    onnx.save(proto, tmp_path / "net.onnx")
    graph = load_graph(tmp_path / "net.onnx")
    (refusal,) = TARGET.refusals(graph)
    assert refusal.rule == rule
    assert refusal.hint


def test_an_operator_that_no_engine_holds_runs_in_onnx_runtime(prove: Any) -> None:
    parity, model = prove(
        MAP.format(STEM + f"s = Sign(a)  c = {PADDED}(s, w)  h = Hardmax(c)  y = Asinh(h)")
    )
    assert {"Hardmax", "Asinh"} <= set(kinds(model))
    assert parity.top1_agreement == 1


def test_scales_are_refused_at_the_export_unless_allowed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        BinaryConv2d(algorithms.load("xnor"), 3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
    ).eval()
    example = torch.zeros(1, 3, 9, 9)
    with pytest.raises(LoweringError, match="allow-unfused-scales"):
        export_model(network, example, target="native", out=tmp_path / "a")
    artifact = export_model(
        network, example, target="native", out=tmp_path / "b",
        options=WriteOptions(allow_unfused_scales=True),
    )  # fmt: skip
    verification = artifact.manifest["verification"]
    assert verification["residency"]["resident"] == 1
    cost = verification["unfused_scales"]
    assert cost["layers"] == 1
    assert cost["extra_operators"]["Mul"] == 1
    assert cost["latency_ratio"] > 0
