import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.layer_input import before_sign
from bibench_deploy.lowering.separate_dilated_layers import separate_dilated_layers
from bibench_deploy.lowering.sign_places import sign_places
from bibench_deploy.lowering.split_groups import split_groups
from tests.deploy.geometries import signs

TEXT = """g (float[1,4,9,9] x) => (y) {{ s = Sign(x)
    a = Conv<dilations=[{0},{0}]{3}>(s, u)  b = Conv<dilations=[{1},{1}]{3}>(s, v)
    c = Conv<dilations=[{2},{2}]{3}>(s, w)
    p = GlobalAveragePool(a)  q = GlobalAveragePool(b)  r = GlobalAveragePool(c)
    t = Add(p, q)  y = Add(t, r) }}"""


def layers(make_graph, dilations: tuple[int, int, int], group: int = 1):
    option = f", group={group}" if group > 1 else ""
    weights = {name: signs((4, 4 // group, 3, 3), ord(name)) for name in "uvw"}
    model = make_graph(TEXT.format(*dilations, option), **weights)
    canonical_binarization(model)
    return model


def bounds(model) -> list[float]:
    return [
        float(constant_of(node.inputs[1]).item()) for node in model.graph if node.op_type == "Max"
    ]


def test_each_layer_of_one_dilation_gets_a_tensor_of_its_own(make_graph, keeps) -> None:
    model = layers(make_graph, (2, 2, 2))
    keeps(separate_dilated_layers, model)
    assert len({before_sign(conv) for conv in binary_convs(model)}) == 3
    low, next_low = bounds(model)
    assert low == np.finfo(np.float32).min
    assert low < next_low < -3e38
    for conv in binary_convs(model):
        np.testing.assert_array_equal(sign_places(model, conv).reshape(-1), np.arange(4 * 81))


@pytest.mark.parametrize(("dilations", "count"), [((1, 2, 3), 0), ((1, 1, 1), 0), ((2, 1, 2), 1)])
def test_layers_of_other_dilations_may_share_a_sign(dilations, count, make_graph) -> None:
    model = layers(make_graph, dilations)
    separate_dilated_layers(model)
    assert len(bounds(model)) == count


@pytest.mark.parametrize(("end", "count"), [(5, 1), (6, 0)])
def test_tensors_that_are_computed_alike_are_one(end, count, make_graph) -> None:
    model = make_graph(
        """g (float[1,4,9,9] x) => (y) {
            h = Slice(x, start, five, axis)  s = Sign(h)  a = Conv<dilations=[2,2]>(s, v)
            i = Slice(x, start, end, axis)  t = Sign(i)  b = Conv<dilations=[2,2]>(t, w)
            p = GlobalAveragePool(a)  q = GlobalAveragePool(b)  y = Add(p, q) }""",
        start=np.array([0]), five=np.array([5]), end=np.array([end]), axis=np.array([2]),
        v=signs((4, 4, 3, 3)), w=signs((4, 4, 3, 3), 1),
    )  # fmt: skip
    canonical_binarization(model)
    separate_dilated_layers(model)
    assert len(bounds(model)) == count


def test_equal_slices_are_one_tensor_and_others_are_not(make_graph, keeps) -> None:
    model = layers(make_graph, (2, 3, 2), group=2)
    split_groups(model)
    keeps(separate_dilated_layers, model)
    # Both groups of the third layer read what those of the first do.
    assert len(bounds(model)) == 2
