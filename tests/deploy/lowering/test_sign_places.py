import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.sign_places import (
    binarized_tensor,
    mark_layer,
    mark_layout,
    sign_places,
    source_layer,
)

RNG = np.random.default_rng(5)
ARRAYS = {
    "zero": 0.0,
    "minus": -1.0,
    "one": 1.0,
    "amounts": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
    "w": np.where(RNG.standard_normal((8, 2, 1, 1)) >= 0, 1.0, -1.0),
    "begin": np.array([1]),
    "end": np.array([2]),
    "axis": np.array([1]),
}
TEXT = "g (float[1,2,2,3] x) => (y) {{ {} n = Less({}, zero) s = Where(n, minus, one) y = {} }}"


@pytest.fixture
def layer(make_graph):
    """layer(nodes, before, product): a graph, and its only binary layer."""

    def make(nodes: str, before: str, product: str = "Conv(s, w)", **arrays):
        model = make_graph(TEXT.format(nodes, before, product), **{**ARRAYS, **arrays})
        return model, binary_convs(model)[0]

    return make


def marked(conv, operators: set[str]) -> None:
    for node in conv.node.graph:
        if node.op_type in operators:
            mark_layout(node)


def test_without_marks_each_sign_is_its_own_place(layer) -> None:
    model, conv = layer("a = Neg(x)", "a")
    np.testing.assert_array_equal(sign_places(model, conv).reshape(-1), np.arange(12))
    assert binarized_tensor(conv).name == "a"


def test_padding_is_minus_one_and_the_rest_keeps_its_place(layer) -> None:
    model, conv = layer("a = Neg(x)  p = Pad(a, amounts, one)", "p")
    marked(conv, {"Pad"})
    places = sign_places(model, conv)
    assert places.shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(places[:, :, 1:, :3].reshape(-1), np.arange(12))
    assert (places == -1).sum() == 12
    assert binarized_tensor(conv).name == "a"


def test_slices_and_doubled_channels_are_followed_to_one_tensor(layer) -> None:
    nodes = "a = Neg(x)  l = Slice(a, begin, end, axis)  p = Concat<axis=1>(l, l)"
    model, conv = layer(nodes, "p")
    marked(conv, {"Slice", "Concat"})
    places = sign_places(model, conv)
    np.testing.assert_array_equal(places[0, 0], np.arange(6, 12).reshape(2, 3))
    np.testing.assert_array_equal(places[0, 1], places[0, 0])


def test_nodes_of_the_model_itself_are_not_followed(layer) -> None:
    model, conv = layer("t = Transpose<perm=[0,1,3,2]>(x)", "t")
    assert binarized_tensor(conv).name == "t"
    np.testing.assert_array_equal(sign_places(model, conv).reshape(-1), np.arange(12))


def test_what_canonical_binarization_moves_before_the_sign_is_marked(make_graph) -> None:
    model = make_graph(
        """g (float[1,2,2,3] x) => (y) {
            s = Sign(x)  t = Transpose<perm=[0,2,3,1]>(s)  f = Flatten(t)  y = MatMul(f, rows) }""",
        rows=np.where(RNG.standard_normal((12, 4)) >= 0, 1.0, -1.0),
    )
    canonical_binarization(model)
    (conv,) = binary_convs(model)
    expected = np.arange(12).reshape(1, 2, 2, 3).transpose(0, 2, 3, 1).reshape(1, 12)
    np.testing.assert_array_equal(sign_places(model, conv), expected)
    assert binarized_tensor(conv).name == "x"
    assert source_layer(conv.node) == "y"


def test_a_piece_knows_its_layer(layer) -> None:
    _, conv = layer("a = Neg(x)", "a")
    assert source_layer(conv.node) == conv.facts.name
    mark_layer(conv.node, "features.3.conv")
    assert source_layer(conv.node) == "features.3.conv"
