import numpy as np
import pytest

from bibench_deploy.graph.near_misses import NearMiss, near_misses

RNG = np.random.default_rng(0)
SIGNS = np.where(RNG.standard_normal((4, 4, 3, 3)) >= 0, 1.0, -1.0)
CONSTANTS = {
    "w": SIGNS, "f": RNG.standard_normal((4, 4, 3, 3)), "mean": np.full((4, 1, 3, 3), 1 / 9),
    "ternary": SIGNS * (RNG.uniform(size=SIGNS.shape) > 0.8), "zero": 0.0, "one": 1.0,
    "minus": -1.0, "half": 0.5, "rows": RNG.standard_normal((4, 4)),
    "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "per_input": np.arange(1.0, 5).reshape(1, 4, 1, 1),
}  # fmt: skip
GRAPH = "g (float[1,4,6,6] x) => (y) {{ {} }}"

# Nodes: the node that is named, and a part of the reason.
MISSES = {
    "b = Relu(x)  [conv] y = Conv(b, w)":
        ("conv", 'one magnitude per channel, but its input "b" cannot .* it comes from "b" (Relu)'),
    "[conv] y = Conv(x, w)": ("conv", 'but its input "x" is not binarized'),
    "r = Relu(x)  g = GreaterOrEqual(r, zero)  s = Where(g, one, minus)  [conv] y = Conv(s, w)":
        ("conv", 'its input "s" is one number everywhere'),
    "a = Sub(x, half)  s = Sign(a)  b = Add(x, half)  t = Sign(b)  u = Add(s, t)"
    "  [conv] y = Conv(u, w)": ("conv", "cannot be shown to take two values"),
    "s = Sign(x)  m = Add(s, per_input)  [conv] y = Conv(m, w)":
        ("conv", 'it comes from "m" (Add)'),
    "s = Sign(x)  [conv] y = Conv(s, f)":
        ("conv", "its input is binary, but channel 0 of its weights holds 36 magnitudes, 0."),
    "s = Sign(x)  p = MaxPool<kernel_shape=[2,2]>(s)  [conv] y = Conv(p, f)":
        ("conv", "its input is binary, but channel"),
    "s = Sign(x)  [conv] y = Conv(s, ternary)": ("conv", "most of its weights are 0"),
    "s = Sign(x)  [up] y = ConvTranspose(s, w)": ("up", "a transposed convolution"),
    "s = Sign(x)  [pool] p = MaxPool<kernel_shape=[2,2]>(s)  [conv] y = Conv(p, w)":
        ("conv", "pool pools them first; pool before the sign, which gives the same"),
    's = Sign(x)  [around] p = Pad<mode="wrap">(s, amounts)  [conv] y = Conv(p, w)':
        ("conv", 'around pads them in mode "wrap"; pad before the sign'),
    "s = Sign(x)  t = Concat<axis=2>(s, x)  [conv] y = Conv(t, w)":
        ("conv", "t concatenates them with others; concatenate before the sign"),
    "g = Greater(x, zero)  s = Where(g, one, half)  [conv] y = Conv<pads=[1,1,1,1]>(s, w)":
        ("conv", "its padding is neither of their levels, 0.5 and 1, nor halfway between"),
    "[sign] s = Sign(x)  y = GlobalAveragePool(s)":
        ("sign", "takes two values (-1 and 1), but no layer of binary weights reads it"),
    "g = GreaterOrEqual(x, zero)  [choice] s = Where(g, one, minus)  y = Add(s, x)":
        ("choice", "takes two values (-1 and 1), but no layer"),
}  # fmt: skip


@pytest.mark.parametrize("nodes", MISSES)
def test_what_looks_binary_and_is_not_proven_is_named_with_the_reason(nodes, make_graph) -> None:
    name, reason = MISSES[nodes]
    found = near_misses(make_graph(GRAPH.format(nodes), **CONSTANTS))
    assert name in [miss.node for miss in found]
    text = next(miss.reason for miss in found if miss.node == name)
    for part in reason.split(" .* "):
        assert part in text


NOTHING = [
    "s = Sign(x)  y = Conv(s, w)",
    "s = Sign(x)  e = Equal(s, zero)  t = Where(e, one, s)  y = Conv<pads=[1,1,1,1]>(t, w)",
    "y = Conv(x, f)",
    "r = Relu(x)  y = Conv<group=4>(r, mean)",
    "g = Greater(x, zero)  m = Cast<to=1>(g)  y = Mul(m, x)",
    "g = Greater(x, zero)  h = Mul(x, half)  y = Where(g, x, h)",
    "y = MatMul(x, x)",
]


@pytest.mark.parametrize("nodes", NOTHING)
def test_a_proven_layer_and_a_float_network_give_nothing(nodes, make_graph) -> None:
    assert near_misses(make_graph(GRAPH.format(nodes), **CONSTANTS)) == ()


def test_several_are_told_in_graph_order(make_graph) -> None:
    nodes = """r = Relu(x)  [first] a = Conv(r, w)  s = Sign(a)  [second] b = Conv(s, f)
               t = Sign(b)  y = Conv<pads=[1,1,1,1]>(t, w)"""
    found = near_misses(make_graph(GRAPH.format(nodes), **CONSTANTS))
    assert [miss.node for miss in found] == ["first", "second"]
    assert all(isinstance(miss, NearMiss) for miss in found)
