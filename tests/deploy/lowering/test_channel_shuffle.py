import numpy as np
import pytest

from bibench_deploy.lowering.channel_shuffle import channel_shuffle

ARRAYS = {
    "split": np.array([1, 2, 4, 3, 5]), "merge": np.array([1, 8, 3, 5]),
    "rows": np.array([1, 8, 15]), "other": np.array([1, 4, 6, 5]),
}  # fmt: skip
TEXT = "g (float[1,8,3,5] x) => (y) {{ {} }}"
SHUFFLE = "a = Reshape(x, split)  t = Transpose<perm=[0,2,1,3,4]>(a)  {}"


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_a_channel_shuffle_is_one_gather(make_graph, keeps) -> None:
    model = make_graph(TEXT.format(SHUFFLE.format("y = Reshape(t, merge)")), **ARRAYS)
    keeps(channel_shuffle, model)
    assert operators(model) == ["Gather"]
    assert model.graph[0].inputs[1].const_value.numpy().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert [value.name for value in model.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    "nodes",
    [
        SHUFFLE.format("y = Reshape(t, other)"),
        SHUFFLE.format("b = Reshape(t, merge)  c = Relu(t)  d = Reshape(c, merge)  y = Add(b, d)"),
        "a = Reshape(x, split)  t = Transpose<perm=[0,1,2,4,3]>(a)  y = Reshape(t, merge)",
        "a = Reshape(x, rows)  t = Transpose<perm=[0,2,1]>(a)  y = Reshape(t, merge)",
    ],
)
def test_whatever_moves_more_than_channels_stays(nodes, make_graph, keeps) -> None:
    model = make_graph(TEXT.format(nodes), **ARRAYS)
    before = operators(model)
    keeps(channel_shuffle, model)
    assert operators(model) == before


def test_a_shuffle_of_signs_is_found_in_the_proof(make_graph) -> None:
    from bibench_deploy.graph.facts import binary_convs
    from bibench_deploy.lowering.canonical_binarization import canonical_binarization
    from bibench_deploy.lowering.sign_places import sign_places

    signs = np.where(np.arange(32).reshape(4, 8, 1, 1) % 3, 1.0, -1.0)
    nodes = "s = Sign(x)  a = Reshape(s, split)  t = Transpose<perm=[0,2,1,3,4]>(a)"
    nodes += "  r = Reshape(t, merge)  y = Conv(r, w)"
    model = make_graph(TEXT.format(nodes), w=signs, **ARRAYS)
    canonical_binarization(model)
    channel_shuffle(model)
    assert operators(model) == ["Gather", "Less", "Where", "Conv"]
    (conv,) = binary_convs(model)
    places = sign_places(model, conv)
    assert (places[0, :, 0, 0] // 15).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
