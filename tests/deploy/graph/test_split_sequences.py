import numpy as np
import pytest

ARRAYS = {
    "i0": np.array(0), "i1": np.array(1), "back": np.array(-1), "three": np.array(3),
    "sizes": np.array([1, 4, 3]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("split", "shapes"),
    [
        ("SplitToSequence<axis=1>(x, three)", [(1, 3, 4), (1, 3, 4), (1, 2, 4)]),
        ("SplitToSequence<axis=1>(x, sizes)", [(1, 1, 4), (1, 4, 4), (1, 3, 4)]),
        ("SplitToSequence<axis=-2>(x)", [(1, 1, 4), (1, 1, 4), (1, 1, 4)]),
        ("SplitToSequence<axis=1, keepdims=0>(x)", [(1, 4), (1, 4), (1, 4)]),
        ("SplitToSequence<axis=2>(x, three)", [(1, 8, 3), (1, 8, 1), (1, 8, 1)]),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["i0", "i1", "back"])
def test_a_piece_of_a_sequence_is_a_slice(
    split, shapes, place, make_proto, make_graph, run_graph
) -> None:
    index = ("i0", "i1", "back")[place]
    sizes = ",".join(map(str, shapes[place]))
    text = (
        f"g (float[1,8,4] x) => (float[{sizes}] y) {{ q = {split}"
        f"  [piece] a = SequenceAt(q, {index})  y = Relu(a) }}"
    )
    graph = make_graph(text, **ARRAYS)
    assert {node.op_type for node in graph.graph} <= {"Slice", "Reshape", "Relu"}
    x = np.random.default_rng(0).standard_normal((1, 8, 4)).astype(np.float32)
    expected = run_graph(make_proto(text, **ARRAYS), x)
    np.testing.assert_array_equal(run_graph(graph, x), expected)
    assert expected.shape == shapes[place]


def test_a_piece_that_the_graph_gives_out_keeps_its_name(make_graph) -> None:
    graph = make_graph(
        "g (float[1,8,4] x) => (float[1,3,4] y) { q = SplitToSequence<axis=1>(x, three)"
        "  y = SequenceAt(q, i0) }",
        **ARRAYS,
    )
    assert [value.name for value in graph.graph.outputs] == ["y"]
