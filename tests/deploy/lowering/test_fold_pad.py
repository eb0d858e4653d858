import numpy as np
import pytest

from bibench_deploy.lowering.fold_pad import fold_pad

RNG = np.random.default_rng(5)
ARRAYS = {
    "f": RNG.integers(-8, 8, (6, 4, 3, 3)) / 4,
    "around": np.array([0, 0, 1, 2, 0, 0, 0, 3]),
    "hw": np.array([2, 3]), "hw_around": np.array([1, 0, 2, 1]),
    "channels": np.array([0, 1, 0, 0, 0, -1, 0, 0]), "cut": np.array([0, 0, 1, -1, 0, 0, 0, 0]),
    "zero": 0.0, "half": 0.5,
}  # fmt: skip
TEXT = "g (float[1,4,6,6] x) => (y) {{ {} }}"


@pytest.mark.parametrize(
    "nodes",
    [
        "p = Pad(x, around)  y = Conv<strides=[2,2]>(p, f)",
        "p = Pad(x, hw_around, zero, hw)  y = Conv(p, f)",
        "p = Pad(x, around)  y = Conv<pads=[1,0,2,1]>(p, f)",
        'p = Pad(x, around)  y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(p, f)',
        "p = Pad(x, around)  a = Conv(p, f)  b = Conv(p, f)  y = Add(a, b)",
    ],
)
def test_zeros_become_padding_of_the_convolution(nodes, make_graph, keeps) -> None:
    model = make_graph(TEXT.format(nodes), **ARRAYS)
    keeps(fold_pad, model)
    assert "Pad" not in [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    "nodes",
    [
        "p = Pad(x, around, half)  y = Conv(p, f)",
        'p = Pad<mode="reflect">(x, around)  y = Conv(p, f)',
        "p = Pad(x, channels)  y = Conv(p, f)",
        "p = Pad(x, cut)  y = Conv(p, f)",
        "p = Pad(x, around)  y = MaxPool<kernel_shape=[3,3]>(p)",
    ],
)
def test_whatever_is_no_padding_of_zeros_stays(nodes, make_graph, keeps) -> None:
    model = make_graph(TEXT.format(nodes), **ARRAYS)
    keeps(fold_pad, model)
    assert "Pad" in [node.op_type for node in model.graph]


def test_a_pad_with_other_readers_stays_for_them(make_graph, keeps) -> None:
    nodes = "p = Pad(x, around)  a = Conv<pads=[1,1,1,1]>(p, same)  y = Add(a, p)"
    model = make_graph(TEXT.format(nodes), same=ARRAYS["f"][:4], around=ARRAYS["around"])
    keeps(fold_pad, model)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    assert conv.inputs[0] is model.graph.inputs[0]
    assert [node.op_type for node in model.graph].count("Pad") == 1
