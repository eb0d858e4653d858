"""Each refusal has a graph that it stops, and a twin that differs in one thing and is held."""

import numpy as np
import pytest

from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.capabilities import refusals
from bibench_deploy.targets.lce.float_operators.arithmetic import channels_last

RNG = np.random.default_rng(7)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ARRAYS = {
    "w": signs(8, 4, 3, 3),
    "square": signs(4, 4, 3, 3),
    "w5": signs(8, 4, 5, 5),
    "grouped": signs(8, 2, 3, 3),
    "row": signs(8, 4, 3),
    "f": RNG.standard_normal((8, 4, 3, 3)),
    "f_grouped": RNG.standard_normal((8, 2, 3, 3)),
    "f_depth": RNG.standard_normal((4, 1, 3, 3)),
    "f_many": RNG.standard_normal((8, 1, 3, 3)),
    "v": RNG.standard_normal((3, 256)),
    "v4": RNG.standard_normal((3, 4)),
    "vw": RNG.standard_normal((8, 3)),
    "alpha": RNG.uniform(1, 2, (8, 1, 1)),
    "rows": RNG.uniform(1, 2, (6, 1)),
    "map": RNG.uniform(1, 2, (1, 8, 6, 6)),
    "shift": RNG.uniform(1, 2, (4, 1, 1)),
    "place": RNG.uniform(1, 2, (8, 8)),
    "slopes": np.full((4, 1, 1), 0.25),
    "wide": np.full(8, 0.25),
    "one": 1.0, "minus": -1.0, "zero": 0.0, "quarter": 0.25, "third": 3.0,
    "ones": np.ones(4), "zeros": np.zeros(4),
    "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "height_width": np.array([2, 3]),
    "all_but_batch": np.array([1, 2, 3]),
    "flat": np.array([1, -1]),
    "halves": np.array([1, 2, -1]),
    "two_rows": np.array([2, -1]),
    "planes": RNG.standard_normal((1, 4, 8, 8)),
}  # fmt: skip
MAP = "g (float[1,4,8,8] x) => (y) {{ {} }}"
SMALL = "g (float[1,4,2,2] x) => (y) {{ {} }}"
ROW = "g (float[1,4,9] x) => (y) {{ {} }}"
FLAT = "g (float[1,4] x) => (y) {{ {} }}"

# Name: (words of the refusal, graph, what is refused in it, what is held).
CASES = {
    "scale per row": (
        "spatial scale", MAP, "s = Sign(x)  c = Conv(s, w)  y = Mul(c, rows)",
        "s = Sign(x)  c = Conv(s, w)  y = Mul(c, alpha)"),
    "scale computed from the input": (
        "dynamic scale", MAP,
        "m = ReduceMean(x, all_but_batch)  s = Sign(x)  c = Conv(s, w)  y = Mul(c, m)",
        "s = Sign(x)  c = Conv(s, w)  y = Mul(c, alpha)"),
    "threshold": (
        "binarizes at 0.25; subtract that", MAP,
        "g = GreaterOrEqual(x, quarter)  s = Where(g, one, minus)  y = Conv(s, w)",
        "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)  y = Conv(s, w)"),
    "falling step": (
        "binarizes to −1 above the threshold", MAP,
        "g = GreaterOrEqual(x, zero)  s = Where(g, minus, one)  y = Conv(s, w)",
        "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)  y = Conv(s, w)"),
    "groups": (
        "grouped binary convolution", MAP,
        "s = Sign(x)  y = Conv<group=2>(s, grouped)", "s = Sign(x)  y = Conv(s, w)"),
    "padding with one": (
        "pads with 1", MAP,
        "s = Sign(x)  p = Pad(s, amounts, one)  y = Conv(p, w)",
        "s = Sign(x)  p = Pad(s, amounts, zero)  y = Conv(p, w)"),
    "one dimension": (
        "one-dimensional", ROW, "s = Sign(x)  y = Conv(s, row)", None),
    "map smaller than the kernel": (
        "smaller than the kernel", SMALL,
        "s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w)",
        "p = Concat<axis=1>(x, x)  c = Conv<pads=[1,1,1,1]>(x, f)  y = Relu(c)"),
    "map smaller than the dilated kernel": (
        "smaller than the kernel", SMALL.replace("2,2", "4,4"),
        "s = Sign(x)  y = Conv<pads=[2,2,2,2], dilations=[2,2]>(s, w)",
        "s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w)"),
    "binary stride and dilation": (
        "strides and dilations together", MAP,
        "s = Sign(x)  y = Conv<strides=[2,2], dilations=[2,2]>(s, w)",
        "s = Sign(x)  y = Conv<dilations=[2,2]>(s, w)"),
    "float stride and dilation": (
        "strides and dilations together", MAP,
        "y = Conv<strides=[2,2], dilations=[2,2]>(x, f)", "y = Conv<strides=[2,2]>(x, f)"),
    "binary padding": (
        "neither SAME nor VALID", MAP,
        "s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w5)",
        "s = Sign(x)  y = Conv<pads=[2,2,2,2]>(s, w5)"),
    "max pooling padding": (
        "neither SAME nor VALID", MAP,
        "y = MaxPool<kernel_shape=[5,5], pads=[1,1,1,1]>(x)",
        "y = MaxPool<kernel_shape=[5,5], pads=[2,2,2,2]>(x)"),
    "operator": ("operator Exp is not supported", MAP, "y = Exp(x)", "y = Sigmoid(x)"),
    "reader of signs": (
        "reads a binarized tensor", MAP,
        "s = Sign(x)  c = Conv<pads=[1,1,1,1]>(s, square)  y = Add(c, s)",
        "s = Sign(x)  c = Conv<pads=[1,1,1,1]>(s, square)  y = Add(c, x)"),
    "float groups": (
        "float convolution of 2 groups", MAP,
        "y = Conv<group=2>(x, f_grouped)", "y = Conv(x, f)"),
    "depthwise with a multiplier": (
        "float convolution of 4 groups", MAP,
        "y = Conv<group=4>(x, f_many)", "y = Conv<group=4>(x, f_depth)"),
    "pooling in one dimension": (
        "needs two dimensions", ROW, "y = MaxPool<kernel_shape=[3]>(x)", None),
    "dilated pooling": (
        "needs two dimensions without dilation", MAP,
        "y = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(x)",
        "y = MaxPool<kernel_shape=[3,3]>(x)"),
    "padded average": (
        "average pooling with padding", MAP,
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
        "y = AveragePool<kernel_shape=[3,3]>(x)"),
    "weight that is computed": (
        "needs a constant [O, I] weight", "g (float[1,1] x) => (y) {{ {} }}",
        "t = Sigmoid(x)  y = MatMul(x, t)", "t = Sigmoid(x)  y = Mul(x, t)"),
    "factor in a Gemm": (
        "alpha, beta or transA", FLAT,
        "y = Gemm<transB=1, alpha=2.0>(x, v4)", "y = Gemm<transB=1>(x, v4)"),
    "constant per place": (
        "not one number per channel", MAP, "y = Add(x, place)", "y = Add(x, shift)"),
    "operands of different channels": (
        "different rank or channel count", MAP,
        "a = Conv(x, f)  b = Conv(x, f_one)  y = Mul(a, b)",
        "a = Conv(x, f_one)  b = Conv(x, f_one)  y = Mul(a, b)"),
    "mean over channels": (
        "mean over anything but height and width", MAP,
        "y = ReduceMean(x, all_but_batch)", "y = ReduceMean(x, height_width)"),
    "reshape to another shape": (
        "only flattening a whole map", MAP,
        "h = Reshape(x, halves)  y = Relu(h)",
        "h = Reshape(x, flat)  y = Gemm<transB=1>(h, v)"),
    "flattening into the batch": (
        "only flattening a whole map", MAP,
        "h = Reshape(x, two_rows)  y = Relu(h)", "h = Flatten(x)  y = Gemm<transB=1>(h, v)"),
    "flattened map read by others": (
        "other than fully connected layers read", MAP,
        "h = Flatten(x)  y = Relu(h)", "h = Flatten(x)  y = Gemm<transB=1>(h, v)"),
    "flattened signs": (
        "Sign outside any recognised binary layer", MAP,
        "s = Sign(x)  h = Flatten(s)  y = Gemm<transB=1>(h, v_signs)",
        "h = Flatten(x)  s = Sign(h)  y = Gemm<transB=1>(s, v_signs)"),
    "concatenation of heights": (
        "along anything but channels", MAP,
        "y = Concat<axis=2>(x, x)", "y = Concat<axis=1>(x, x)"),
    "concatenation with a constant": (
        "concatenation with a constant", MAP,
        "y = Concat<axis=1>(x, planes)", "y = Concat<axis=1>(x, x)"),
    "softmax over a map": ("softmax over a map", MAP, "y = Softmax<axis=1>(x)", "y = Sigmoid(x)"),
    "softmax over the batch": (
        "softmax over the batch", FLAT, "y = Softmax<axis=0>(x)", "y = Softmax(x)"),
    "slope per column": (
        "slopes of shape [8]", MAP, "y = PRelu(x, wide)", "y = PRelu(x, slopes)"),
    "computed slope": (
        "parameters of this PRelu are computed", MAP,
        "m = ReduceMean(x, height_width)  y = PRelu(x, m)", "y = PRelu(x, quarter)"),
    "computed bias": (
        "parameters of this Conv are computed", MAP,
        "m = ReduceMean<keepdims=0>(x, all_axes)  y = Conv(x, f_one_out, m1)",
        "y = Conv(x, f)"),
    "two outputs": (
        "gives 2 outputs", MAP.replace("(y)", "(y, z)"),
        "z = Sigmoid(x)  y = Relu(x)", None),
    "three dimensions": (
        "one input of two or four dimensions", ROW, "y = Relu(x)", None),
}  # fmt: skip
ARRAYS |= {
    "f_one": RNG.standard_normal((1, 4, 3, 3)),
    "v_signs": signs(3, 256),
    "v4_signs": signs(3, 4),
}
# A bias can only be computed from an input of one dimension: it gets one of its own.
CASES["computed bias"] = (
    "parameters of this Conv are computed",
    "g (float[1,4,8,8] x, float[8] b) => (y) {{ {} }}",
    "m = Neg(b)  y = Conv(x, f, m)",
    None,
)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_is_refused_for_this_and_its_twin_is_held(case, make_graph) -> None:
    words, text, refused, held = CASES[case]
    reasons = TARGET.refusals(make_graph(text.format(refused), **ARRAYS))
    assert any(words in reason for reason in reasons), reasons
    if held is not None:
        assert TARGET.refusals(make_graph(text.format(held), **ARRAYS)) == []


@pytest.mark.parametrize("case", CASES)
def test_a_reason_names_the_node_that_is_in_the_way(case, make_graph) -> None:
    words, text, refused, _ = CASES[case]
    model = make_graph(text.format(refused), **ARRAYS)
    (reason,) = (text for text in TARGET.refusals(model) if words in text)
    names = [node.name for node in model.graph]
    assert reason.partition(":")[0] in names or reason.startswith("the graph ")


def test_indices_of_a_max_pooling_are_refused_where_they_are_read(make_graph) -> None:
    text = "g (float[1,4,8,8] x) => ({}) {{ y, i = MaxPool<kernel_shape=[2,2]>(x)  {} }}"
    assert refusals(make_graph(text.format("y", ""))) == []
    reasons = refusals(make_graph(text.format("y", "j = Cast<to=1>(i)  z = Add(j, y)")))
    assert reasons == []  # nothing reads z: it is gone
    read = make_graph(
        "g (float[1,4,8,8] x) => (z) { y, i = MaxPool<kernel_shape=[2,2]>(x)"
        "  j = Cast<to=1>(i)  z = Add(j, y) }"
    )
    assert any("a max pooling whose indices are read" in reason for reason in refusals(read))


def test_operators_of_other_domains_are_named_with_their_domain(make_proto, tmp_path) -> None:
    import onnx

    from bibench_deploy.graph.load import load_graph

    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(proto, tmp_path / "model.onnx")
    (reason,) = refusals(load_graph(tmp_path / "model.onnx"))
    assert reason == "y: operator com.example.Relu is not supported; replace it in the model"


def test_one_sign_may_feed_several_layers(make_graph) -> None:
    nodes = "s = Sign(x)  a = Conv(s, w)  b = Conv(s, w)  y = Add(a, b)"
    assert refusals(make_graph(MAP.format(nodes), **ARRAYS)) == []


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [((), 4, ()), ((1, 1, 1, 1), 4, ()), ((1,), 2, ()), ((5, 1, 1), 4, (5,)),
     ((1, 5, 1, 1), 4, (5,)), ((5,), 2, (5,)), ((1, 5), 2, (5,))],
)  # fmt: skip
def test_constants_for_nhwc_have_rank_0_or_1(shape, rank, expected) -> None:
    assert channels_last(np.ones(shape, np.float32), rank).shape == expected


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 5, 1), (1, 5, 5, 1)])
def test_a_constant_per_place_is_never_written(shape) -> None:
    with pytest.raises(ValueError, match="not one number per channel"):
        channels_last(np.arange(np.prod(shape)).reshape(shape), 4)
