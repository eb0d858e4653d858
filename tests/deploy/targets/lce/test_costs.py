"""What lint warns of, looked for in files that the real converter wrote."""

import numpy as np
import pytest

from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite

RNG = np.random.default_rng(23)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ZERO = signs(8, 8, 3, 3)
ZERO[0, 0, 0, 0] = 0
ARRAYS = {
    "w": signs(8, 8, 3, 3), "holes": ZERO, "grouped": signs(8, 4, 3, 3), "each": signs(8, 1, 3, 3),
    "zero": 0.0,
    "one": 1.0, "minus": -1.0, "beta": np.linspace(-1, 1, 8).reshape(1, 8, 1, 1),
    "g": np.linspace(0.5, 2, 8), "b": np.linspace(-1, 1, 8), "m": np.zeros(8), "v": np.ones(8),
    "slope": np.full((8, 1, 1), 0.25),
    "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}  # fmt: skip
MAP = "g (float[1,8,8,8] x) => (y) {{ {} }}"
SIGN = "{1} = GreaterOrEqual({0}, zero)  {2} = Where({1}, one, minus)"
X = SIGN.format("x", "p", "s")
POOL, NORM = "MaxPool<kernel_shape=[2,2]>", "BatchNormalization({}, g, b, m, v)"

# Rule: (nodes that cost something, operators that they leave in the file, what is said; the
# same without the cost).
COSTS = {
    "zero-weights": (
        f"{X}  y = Conv(s, holes)", ["CONCATENATION"],
        "1 of 576 weights is exactly 0, so each is run as half of +1 and half of −1: 2 times",
        f"{X}  y = Conv(s, w)"),
    "groups": (
        f"{X}  y = Conv<group=2>(s, grouped)", ["STRIDED_SLICE", "CONCATENATION"],
        "2 groups run as 2 binary operators", f"{X}  y = Conv(s, w)"),
    "depthwise": (
        f"{X}  y = Conv<group=8>(s, each)", ["STRIDED_SLICE", "CONCATENATION"],
        "8 groups run as 8 binary operators", f"{X}  y = Conv(s, w)"),
    "zero-padding": (
        f"{X}  y = Conv<pads=[2,2,0,0]>(s, w)", ["CONCATENATION"],
        "its padding [2, 2, 0, 0] is no part of what LCE computes as SAME: 2 times",
        f"{X}  y = Conv<pads=[1,1,1,1]>(s, w)"),
    "batch-norm-not-folded": (
        f"{X}  c = Conv(s, w)  q = {POOL}(c)  y = {NORM}".format("q"), ["MUL", "ADD"],
        "behind a max pooling folds into no layer: a multiplication and an addition over 200",
        f"{X}  c = Conv(s, w)  q = {NORM}  y = {POOL}(q)".format("c")),
    "mean-shift": (
        f"h = Add(x, beta)  {SIGN.format('h', 'p', 's')}  y = Conv(s, w)", ["ADD"],
        "an addition over 512 numbers before its sign", f"{X}  y = Conv(s, w)"),
    "sign-of-zero": (
        "p = Greater(x, zero)  s = Where(p, one, minus)  y = Conv(s, w)", ["ADD"],
        "0 becomes −1 here, which costs an addition over 512 numbers", f"{X}  y = Conv(s, w)"),
}  # fmt: skip


@pytest.mark.parametrize("rule", COSTS)
def test_what_costs_something_is_in_the_file(rule, make_graph, write_lce) -> None:
    nodes, operators, message, _ = COSTS[rule]
    graph = make_graph(MAP.format(nodes), **ARRAYS)
    examination = TARGET.examine(graph)
    assert examination.refusals == []
    (cost,) = [cost for cost in examination.costs if cost.rule == rule]
    assert message in cost.message
    assert cost.hint
    assert cost.node in {node.name for node in graph.graph}
    names = {node.name for node in read_tflite(write_lce(graph).files["model"]).operators}
    assert names & set(operators), names


@pytest.mark.parametrize("rule", COSTS)
def test_the_same_without_costs_nothing(rule, make_graph, write_lce) -> None:
    _, operators, _, free = COSTS[rule]
    graph = make_graph(MAP.format(free), **ARRAYS)
    assert [cost for cost in TARGET.examine(graph).costs if cost.rule == rule] == []
    names = {node.name for node in read_tflite(write_lce(graph).files["model"]).operators}
    assert not names & set(operators)


def test_floats_between_two_binary_layers_are_told_where_zeros_pad(make_graph, write_lce) -> None:
    text = "{}  c = Conv<pads=[{}]>(s, w)  {}  y = Conv(t, w)"
    kinds = {}
    for pads in ("1,1,1,1", "0,0,0,0"):
        nodes = text.format(X, pads, SIGN.format("c", "q", "t"))
        graph = make_graph(MAP.format(nodes), **ARRAYS)
        told = [cost.node for cost in TARGET.examine(graph).costs if cost.rule == "float-output"]
        names = [node.name for node in read_tflite(write_lce(graph).files["model"]).operators]
        kinds[pads] = told, names.count("LceQuantize")
    # Where the layer writes bits, nothing has to be binarized again.
    assert kinds == {"1,1,1,1": (["c"], 2), "0,0,0,0": ([], 1)}


def test_zeros_around_a_map_that_is_smaller_than_the_kernel_double_it(
    make_graph, write_lce
) -> None:
    graph = make_graph(
        f"g (float[1,8,2,2] x) => (y) {{ {X}  y = Conv<pads=[1,1,1,1]>(s, w) }}", **ARRAYS
    )
    (cost,) = [item for item in TARGET.examine(graph).costs if not item.is_small]
    assert cost.rule == "map-smaller-than-kernel"
    assert "a 3×3 kernel on a 2×2 map" in cost.message
    assert "2 times the binary multiplications" in cost.message
    names = [node.name for node in read_tflite(write_lce(graph).files["model"]).operators]
    assert "CONCATENATION" in names


@pytest.mark.parametrize(("channels", "words"), [(8, 1), (24, 1), (32, 1), (33, 2), (48, 2)])
def test_words_that_are_not_full_are_told(channels, words, make_graph, write_lce) -> None:
    graph = make_graph(
        f"g (float[1,{channels},8,8] x) => (y) {{ {X}  y = Conv(s, w) }}",
        **ARRAYS | {"w": signs(8, channels, 3, 3)},
    )
    file = read_tflite(write_lce(graph).files["model"])
    (conv,) = [node for node in file.operators if node.name == "LceBconv2d"]
    assert file.tensors[conv.inputs[1]].shape[-1] == words
    told = [cost for cost in TARGET.examine(graph).costs if cost.rule == "channel-count"]
    assert bool(told) is (channels in (8, 24, 33, 48))
    noun = "1 word of 32" if words == 1 else f"{words} words of 32"
    assert all(f"fill {noun} bits" in cost.message for cost in told)


def test_a_binary_linear_layer_is_a_convolution_of_one_place(make_graph, write_lce) -> None:
    graph = make_graph(
        f"g (float[1,64] x) => (y) {{ {X}  y = MatMul(s, rows) }}",
        **ARRAYS | {"rows": signs(64, 32)},
    )
    assert [cost.rule for cost in TARGET.examine(graph).costs] == ["binary-linear"]
    names = [node.name for node in read_tflite(write_lce(graph).files["model"]).operators]
    assert names.count("LceBconv2d") == 1
    assert "FULLY_CONNECTED" not in names


def test_what_is_refused_has_no_costs(make_graph) -> None:
    graph = make_graph(MAP.format(f"h = Trilu(x)  {SIGN.format('h', 'p', 's')}"
                                  "  y = Conv(s, holes)"), **ARRAYS)  # fmt: skip
    examination = TARGET.examine(graph)
    assert [item.rule for item in examination.refusals] == ["unsupported-operator"]
    assert examination.costs == []


def test_one_channel_is_told_in_the_singular(make_graph) -> None:
    text = "g (float[1,1,8,8] x) => (y) { s = PlusMinus(x)  y = Conv(s, one) }"
    examination = TARGET.examine(make_graph(text, one=np.ones((8, 1, 3, 3))))
    (cost,) = [cost for cost in examination.costs if cost.rule == "channel-count"]
    assert cost.message.startswith("1 input channel fills 1 word of 32 bits: 32 times the bytes")
