import numpy as np
import pytest

from bibench_deploy.errors import UnfitGraphError

# As PyTorch 2.13 writes `h[mask] = number`, with the count of places that it works out.
COUNT = (
    "spread = Expand(mask, sizes)  found = NonZero(spread)  places = Transpose<perm=[1,0]>(found)"
    "  flat = Reshape(mask, all)  ones = Cast<to=7>(flat)  count = ReduceSum(ones)"
)
ARRAYS = {
    "zero": 0.0, "one": 1.0, "pair": np.array([1.0, 2.0]), "same": np.full((1, 3, 2, 2), 0.5),
    "sizes": np.array([1, 3, 2, 2]), "all": np.array([-1]), "map": np.arange(12.0),
}  # fmt: skip


def text(mask: str, updates: str, scatter: str = "ScatterND") -> str:
    nodes = f"h = Sign(x)  mask = {mask}  {COUNT}  {updates}  [write] y = {scatter}(h, places, u)"
    return f"g (float[1,3,2,2] x) => (float[1,3,2,2] y) {{ {nodes} }}"


def numbers() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((1, 3, 2, 2)).astype(np.float32)
    x[0, :, 0] = 0
    return x


@pytest.mark.parametrize("mask", ["Equal(h, zero)", "Less(x, zero)", "Greater(x, same)"])
@pytest.mark.parametrize(
    "updates",
    [
        "u = Expand(one, count)",
        "e = Expand(one, count)  u = Reshape(e, all)",
        "u = ConstantOfShape<value=float[1] {2.5}>(count)",
        "u = ConstantOfShape(count)",
        "u = GatherND(same, places)",
    ],
)
def test_a_number_written_to_the_places_of_a_mask_is_a_choice(
    mask, updates, make_proto, make_graph, run_graph
) -> None:
    written = text(mask, updates)
    model = make_graph(written, **ARRAYS)
    assert [node.op_type for node in model.graph][-1] == "Where"
    assert not {"NonZero", "ScatterND", "Expand"} & {node.op_type for node in model.graph}
    assert model.graph.outputs[0].name == "y"
    assert next(node for node in model.graph if node.op_type == "Where").name == "write"
    x = numbers()
    expected = run_graph(make_proto(written, **ARRAYS), x)
    np.testing.assert_array_equal(run_graph(model, x), expected)
    is_written = {"E": x == 0, "L": x < 0, "G": x > 0.5}[mask[0]]
    np.testing.assert_array_equal(expected[~is_written], np.sign(x)[~is_written])
    assert len(np.unique(expected[is_written])) == 1


@pytest.mark.parametrize(
    ("updates", "scatter"),
    [
        ("u = GatherND(x, places)", "ScatterND"),  # other numbers
        ("u = Expand(one, count)", 'ScatterND<reduction="add">'),
    ],
)
def test_other_writes_are_left_and_told(updates, scatter, make_graph) -> None:
    with pytest.raises(UnfitGraphError, match='node "found": NonZero gives a tensor whose size'):
        make_graph(text("Equal(h, zero)", updates, scatter), **ARRAYS)


def test_a_list_of_places_that_is_no_mask_is_left(make_graph) -> None:
    model = make_graph(
        "g (float[1,3,2,2] x) => (float[1,3,2,2] y) { y = ScatterND(x, places, pair) }",
        places=np.array([[0, 0, 0, 0], [0, 1, 1, 1]]),
        **ARRAYS,
    )
    assert [node.op_type for node in model.graph] == ["ScatterND"]
