"""Which rows keep the order of the map they were, and which sequences have channels last."""

import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.channel_order import is_sequence, map_of_row
from bibench_deploy.verify.parity import Observation, compare, seeded_inputs

RNG = np.random.default_rng(19)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ARRAYS = {
    "v": RNG.standard_normal((24, 3)), "c": RNG.standard_normal(24), "half": 0.5, "zero": 0.0,
    "one": 1.0, "minus": -1.0, "to_row": np.array([1, -1]), "i2": np.array([2]),
    "w": signs(6, 4, 3), "w6": signs(6, 6, 3), "f": RNG.standard_normal((5, 6, 3)),
    "slope": RNG.uniform(0.1, 1, (6, 1)), "u": RNG.standard_normal((30, 3)),
    "k": 0.3, "shift": 0.0137,
}  # fmt: skip
MAP = "g (float[1,4,2,3] x) => (y) {{ r = Flatten(x)  {} }}"


@pytest.mark.parametrize(
    "readers",
    [
        "y = MatMul(r, v)",
        "a = Relu(r)  b = Mul(a, half)  y = MatMul(b, v)",
        "l = Less(r, zero)  s = Where(l, minus, one)  y = MatMul(s, v)",
        "a = MatMul(r, v)  b = Tanh(r)  c1 = MatMul(b, v)  y = Add(a, c1)",
    ],
)
def test_a_row_that_layers_read_keeps_the_order_of_its_map(readers, make_graph) -> None:
    model = make_graph(MAP.format(readers), **ARRAYS)
    row = model.graph[0].outputs[0]
    assert map_of_row(row) == (4, 2, 3)
    assert {map_of_row(use.node.outputs[0]) for use in row.uses()} <= {(4, 2, 3), None}


@pytest.mark.parametrize(
    "readers",
    [
        "y = Relu(r)",
        "y = Add(r, c)",
        "a = Add(r, c)  y = MatMul(a, v)",
        "a = Relu(r)  b = MatMul(a, v)  q = Softmax(a)  d = MatMul(q, v)  y = Add(b, d)",
        "a = MatMul(r, v)  y = Gemm<transA=1>(r, a)",
    ],
)
def test_a_row_that_anything_else_reads_has_the_order_of_onnx(readers, make_graph) -> None:
    model = make_graph(MAP.format(readers), **ARRAYS)
    assert map_of_row(model.graph[0].outputs[0]) is None


def test_a_map_of_one_place_has_no_order_to_keep(make_graph) -> None:
    text = "g (float[1,24,1,1] x) => (y) { r = Flatten(x)  y = MatMul(r, v) }"
    assert map_of_row(make_graph(text, **ARRAYS).graph[0].outputs[0]) is None


NETWORK = """g (float[1,4,{0}] x) => (y) {{
    i = PlusMinus(x)  n = Conv<pads=[1,1], strides=[2]>(i, w)  m = Mul(n, k)  h = Add(m, shift)
    r = PRelu(h, slope)  s = Sign(r)  b = Conv<pads=[1,1]>(s, w6)  q = Add(b, r)
    z = Conv<pads=[1,1], strides=[2]>(q, f)  {1} }}"""
ENDS = {
    "a row": "p = ReduceMean<keepdims=0>(z, i2)  y = Relu(p)",
    "a sequence": "y = Relu(z)",
    "a flattened sequence": "t = Flatten(z)  y = MatMul(t, u)",
    "tokens": "y = Transpose<perm=[0,2,1]>(z)",
}


@pytest.mark.parametrize("length", [24, 23], ids=["turned", "upright"])
@pytest.mark.parametrize("end", ENDS)
def test_a_network_of_sequences_computes_what_onnx_runtime_computes(
    end, length, make_graph, write_lce
) -> None:
    graph = make_graph(NETWORK.format(length, ENDS[end]), **ARRAYS)
    assert TARGET.refusals(graph) == []
    lowered = TARGET.lower(graph)
    assert is_sequence(lowered.graph.inputs[0])
    assert is_sequence(lowered.graph.outputs[0]) == (end == "a sequence")
    written = write_lce(graph)
    assert written.input["shape"] == [1, length, 4]
    assert written.input["layout"] == "NLC"
    layouts = {"a sequence": "NLC", "tokens": ""}
    assert written.output["layout"] == layouts.get(end, "NC")
    inputs = seeded_inputs((1, 4, length), 3, 0)
    seen = written.execute(inputs)
    layers = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
    parity = compare(graph, inputs, Observation(seen.outputs, layers), "LCE")
    assert parity.unexplained_flips == 0


def test_a_network_of_products_alone_keeps_the_order_of_its_input(make_graph, write_lce) -> None:
    text = "g (float[1,5,24] x) => (y) { a = MatMul(x, v)  y = Relu(a) }"
    written = write_lce(make_graph(text, **ARRAYS))
    assert (written.input["shape"], written.input["layout"]) == ([1, 5, 24], "NCL")
