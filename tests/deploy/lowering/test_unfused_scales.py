import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.unfused_scales import (
    unfused_nodes,
    unfused_scales,
    without_unfused_scales,
)

RNG = np.random.default_rng(9)
C, H, W = 3, 5, 4
X = RNG.standard_normal((1, 2, H, W)).astype(np.float32)
ALPHA, ROWS, COLUMNS = (RNG.standard_normal(size) for size in (C, H, W))
CONSTANTS = {
    "w": np.where(RNG.standard_normal((C, 2, 3, 3)) >= 0, 0.5, -0.5),
    "alpha": ALPHA.reshape(C, 1, 1),
    "delta": RNG.standard_normal((1, C, 1, 1)),
    "product": (ALPHA[:, None, None] * ROWS[:, None] * COLUMNS).astype(np.float32),
    "map": RNG.uniform(0.5, 2, (H, W)),
    "any": RNG.standard_normal((C, H, W)),
    "box": np.full((1, 1, 3, 3), 1 / 9),
    "channels": np.array([1]),
    "image": np.array([1, 2, 3]),
    "g": RNG.standard_normal(C),
    "b": RNG.standard_normal(C),
    "m": RNG.standard_normal(C),
    "v": RNG.uniform(0.5, 2, C),
    "half": 0.5,
}
LAYER = "s = Sign(x)  c = Conv<pads=[1,1,1,1]>(s, w)  "
BOX = (
    LAYER + "a = Abs(x)  k1 = ReduceMean<keepdims=1>(a, channels)"
    "  k = Conv<pads=[1,1,1,1]>(k1, box)  "
)
NORM = "  y = BatchNormalization(t, g, b, m, v)"
FORMS = {
    "a box filter of the input": (BOX + "d = Mul(c, k)  t = Mul(d, alpha)" + NORM, 1),
    "the same the other way round": (BOX + "d = Mul(alpha, c)  t = Mul(k, d)" + NORM, 1),
    "one number for each image": (
        LAYER + "a = Abs(x)  k = ReduceMean<keepdims=1>(a, image)  t = Mul(c, k)" + NORM,
        1,
    ),
    "that number in front of the layer": (
        "s = Sign(x)  a = Abs(x)  k = ReduceMean<keepdims=1>(a, image)  q = Mul(s, k)"
        "  t = Conv<pads=[1,1,1,1]>(q, w)" + NORM,
        1,
    ),
    "a product of vectors": (LAYER + "t = Mul(c, product)" + NORM, 1),
    "a map": (LAYER + "t = Mul(map, c)" + NORM, 1),
    "a map divided by": (LAYER + "t = Div(c, map)" + NORM, 1),
    "any constant": (LAYER + "t = Mul(c, any)" + NORM, 1),
    "an offset before the factor": (LAYER + "d = Add(c, delta)  t = Mul(d, any)" + NORM, 1),
    "two factors": (BOX + "d = Mul(c, k)  e = Mul(d, half)  t = Mul(e, map)" + NORM, 2),
    "batch norm first": (
        LAYER + "t = BatchNormalization(c, g, b, m, v)  d = Mul(t, any)  y = Sub(delta, d)",
        1,
    ),
}


@pytest.fixture
def passed(make_graph, run_graph):
    """passed(body): the graph after the pass, which must compute as before; its factors."""

    def run(body):
        used = {key: array for key, array in CONSTANTS.items() if key in body}
        before = make_graph(f"g (float[1,2,{H},{W}] x) => (y) {{ {body} }}", **used)
        canonical_binarization(before)
        after = before.clone()
        unfused_scales(after)
        fold_channel_affine(after)
        expected = run_graph(before, X)
        np.testing.assert_allclose(
            run_graph(after, X), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
        )
        return after, unfused_nodes(after)

    return run


def behind(model) -> list[str]:
    (conv,) = binary_convs(model)
    names, value = [], conv.node.outputs[0]
    while len(uses := list(value.uses())) == 1:
        names.append(uses[0].node.op_type)
        value = uses[0].node.outputs[0]
    return names


@pytest.mark.parametrize("form", FORMS)
def test_the_factor_comes_behind_all_that_folds(form, passed) -> None:
    body, factors = FORMS[form]
    model, nodes = passed(body)
    assert behind(model) == ["BatchNormalization", *["Mul"] * factors, "Add"]
    assert [node.op_type for node in nodes] == ["Mul"] * factors


def test_a_product_of_vectors_leaves_one_number_for_each_place(passed) -> None:
    _, (node,) = passed(FORMS["a product of vectors"][0])
    assert shape_of(node.inputs[1]) == (1, 1, H, W)
    assert np.abs(constant_of(node.inputs[1])).max() == 1


def test_what_is_no_product_stays_whole(passed) -> None:
    _, (node,) = passed(FORMS["any constant"][0])
    assert shape_of(node.inputs[1]) == (1, C, H, W)


def test_nothing_behind_a_layer_without_such_a_factor_is_touched(passed) -> None:
    model, nodes = passed(LAYER + "t = Mul(c, alpha)" + NORM)
    assert nodes == []
    assert behind(model) == ["BatchNormalization"]


def test_a_second_factor_behind_an_offset_stays_behind_it(passed) -> None:
    model, nodes = passed(LAYER + "d = Mul(c, any)  e = Add(d, delta)  y = Mul(e, map)")
    assert behind(model) == ["BatchNormalization", "Mul", "Add", "Mul"]
    assert len(nodes) == 1


def test_what_something_else_reads_stays(passed) -> None:
    _, nodes = passed(LAYER + "t = Mul(c, any)  z = Relu(c)  y = Add(t, z)")
    assert nodes == []


def test_a_factor_that_makes_the_output_larger_stays(make_graph) -> None:
    model = make_graph(
        "g (float[1,2,1,1] x) => (y) { s = Sign(x)  c = Conv(s, w)  y = Mul(c, any) }",
        w=np.sign(CONSTANTS["w"][:, :, :1, :1]),
        any=CONSTANTS["any"],
    )
    canonical_binarization(model)
    unfused_scales(model)
    assert unfused_nodes(model) == []


@pytest.mark.parametrize("form", FORMS)
def test_without_the_factors_only_what_fuses_is_left(form, passed) -> None:
    model, nodes = passed(FORMS[form][0])
    bare = without_unfused_scales(model)
    assert behind(bare) == ["BatchNormalization"]
    assert not {"Abs", "ReduceMean", "Mul"} & {node.op_type for node in bare.graph}
    assert unfused_nodes(model) == nodes  # the model itself keeps them
