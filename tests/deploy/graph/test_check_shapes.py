import numpy as np
import pytest

from bibench_deploy.errors import GraphError, UnfitGraphError

WEIGHTS = {
    "w": np.ones((5, 4, 3, 3)), "three": np.ones((5, 3, 3, 3)), "flat": np.ones((6, 2)),
    "pair": np.ones(2), "four": np.ones(4), "five": np.ones(5), "sizes": np.array([1, 7]),
    "group": np.ones((5, 2, 3, 3)), "rows": np.ones((144, 5)), "turned": np.ones((4, 5, 3, 3)),
}  # fmt: skip

# Name: (nodes from x, [1,4,6,6], to y; how the node is named in the message).
MISFITS = {
    "channels of a convolution": ("[bad] y = Conv(x, three)", r"\(Conv\) .* \[1, 4, 6, 6\] and \["),
    "groups of a convolution": ("[bad] y = Conv<group=2>(x, group)", r"\(Conv\)"),
    "bias of a convolution": ("[bad] y = Conv(x, w, four)", r"\(Conv\)"),
    "groups of a transposed convolution": (
        "[bad] y = ConvTranspose<group=0>(x, turned)", r"\(ConvTranspose\)"),
    "channels of a transposed convolution": (
        "[bad] y = ConvTranspose(x, w)", r"\(ConvTranspose\)"),
    "batch norm": ("[bad] y = BatchNormalization(x, five, five, five, five)", r"\(BatchNorm"),
    "product of matrices": ("[bad] y = MatMul(x, five)", r"\(MatMul\)"),
    "gemm": ("f = Flatten(x)  [bad] y = Gemm(f, flat)", r"\(Gemm\) .* \[1, 144\] and \[6, 2\]"),
    "bias of a gemm": ("f = Flatten(x)  [bad] y = Gemm(f, rows, four)", r"\(Gemm\)"),
    "bias of more axes than a gemm": ("f = Flatten(x)  [bad] y = Gemm(f, rows, w)", r"\(Gemm\)"),
    "bounds of a clip": ("[bad] y = Clip(x, four)", r"\(Clip\) .* \[4\]"),
    "padding": ("[bad] y = Pad(x, sizes)", r"\(Pad\)"),
    "sum": ("[bad] y = Add(x, five)", r"\(Add\) .* \[1, 4, 6, 6\] and \[5\]"),
    "reshape": ("[bad] y = Reshape(x, sizes)", r"\(Reshape\) .* \[1, 4, 6, 6\] and \[2\] of INT64"),
    "concat": ("f = Flatten(x)  [bad] y = Concat<axis=0>(x, f)", r"\(Concat\)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("Conv<strides=[1099511627776,1]>(x, w)", r"has strides \[1099511627776, 1\], beyond what"),
        ("Conv<pads=[99999,99999,99999,99999]>(x, w)", r"gives \[1, 5, 200002, 200002\], more num"),
    ],
)
def test_what_no_engine_counts_or_holds_is_named(nodes, words, make_graph) -> None:
    with pytest.raises(GraphError, match=rf'node "y" \(Conv\) {words}'):
        make_graph(f"g (float[1,4,6,6] x) => (y) {{ y = {nodes} }}", **WEIGHTS)


@pytest.mark.parametrize("case", MISFITS)
def test_a_node_that_does_not_fit_its_inputs_is_named_with_their_shapes(case, make_graph) -> None:
    nodes, message = MISFITS[case]
    with pytest.raises(GraphError, match=f'node "bad" {message}.*: export the model again'):
        make_graph(f"g (float[1,4,6,6] x) => (float[1,5] y) {{ {nodes}  }}", **WEIGHTS)


def test_the_first_of_several_is_named(make_graph) -> None:
    with pytest.raises(GraphError, match='node "first"'):
        make_graph(
            "g (float[1,4] x) => (float[1,4] y) { [first] h = Add(x, w)  [second] y = Add(h, w) }",
            w=np.ones(3),
        )


def test_a_size_that_depends_on_the_numbers_is_refused(make_graph) -> None:
    with pytest.raises(UnfitGraphError, match='node "found": NonZero gives a tensor whose size'):
        make_graph("g (float[1,4] x) => (int64[2,K] y) { [found] y = NonZero(x) }")


def test_shapes_that_the_file_tells_wrongly_do_not_count(make_graph) -> None:
    model = make_graph("g (float[1,4,6,6] x) => (float[1,9] y) { y = Flatten(x) }")
    assert list(model.graph.outputs[0].shape) == [1, 144]


@pytest.mark.parametrize("bias", [np.ones(5), np.ones(1), np.ones((1, 5)), np.ones(())])
def test_a_bias_that_spreads_over_a_gemm_is_no_misfit(bias, make_graph) -> None:
    text = "g (float[1,4] x) => (float[1,5] y) { y = Gemm(x, rows, bias) }"
    assert len(make_graph(text, rows=np.ones((4, 5)), bias=bias).graph) == 1


def test_a_padding_of_some_axes_is_no_misfit(make_graph) -> None:
    text = "g (float[1,2,4,4] x) => (y) { y = Pad(x, amounts, , axes) }"
    constants = {"amounts": np.array([1, 1, 1, 1]), "axes": np.array([2, 3])}
    assert list(make_graph(text, **constants).graph.outputs[0].shape) == [1, 2, 6, 6]
