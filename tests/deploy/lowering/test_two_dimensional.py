import numpy as np
import pytest
from onnx_ir.passes.common import NameFixPass

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.lowering.two_dimensional import two_dimensional

RNG = np.random.default_rng(5)


def numbers(*shape: int):
    # Halves and quarters: sums and products are exact in any order.
    return RNG.integers(-8, 8, shape) / 4


ARRAYS = {
    "w": np.where(RNG.standard_normal((6, 4, 3)) >= 0, 1.0, -1.0),
    "f": numbers(6, 4, 3), "b": numbers(6), "depth": numbers(4, 1, 5), "t": numbers(4, 6, 2),
    "c": numbers(4, 1), "place": numbers(12), "whole": numbers(1, 4, 12), "half": 0.5,
    "ones": np.ones(4), "zeros": np.zeros(4), "scale": numbers(4),
    "i0": np.array([0]), "i1": np.array([1]), "i2": np.array([2]), "i12": np.array([1, 2]),
    "last": np.array([-1]), "pads": np.array([0, 0, 1, 0, 0, 2]), "two_pads": np.array([1, 2]),
    "start": np.array([2]), "end": np.array([100]), "step": np.array([3]),
    "starts": np.array([0, 1, 2]), "ends": np.array([1, 3, 9]),
    "sizes": np.array([1, 3]), "twice": np.array([1, 1, 2]),
    "wide": np.array([1, 1, 2], np.float32),
    "to_size": np.array([1, 4, 24]), "to_whole": np.array([1, 4, 12]), "flat": np.array([1, -1]),
    "v": numbers(48, 3), "u": numbers(12, 3),
}  # fmt: skip

# Behind a pooling, so that whatever follows is on maps; h is [1, 4, 12].
BODIES = {
    "convolution": "y = Conv<pads=[1,1]>(h, f, b)",
    "convolution with every attribute": """y = Conv<pads=[2,1], strides=[2], dilations=[2],
        kernel_shape=[3]>(h, f)""",
    "convolution padded by name": 'y = Conv<auto_pad="SAME_UPPER", strides=[2]>(h, f)',
    "depthwise convolution": "y = Conv<group=4, pads=[2,2]>(h, depth)",
    "transposed convolution": "y = ConvTranspose<strides=[2], output_padding=[1]>(h, t)",
    "binary convolution": "s = Sign(h)  y = Conv<pads=[1,1]>(s, w)",
    "max pooling": "y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(h)",
    "average pooling": "y = AveragePool<kernel_shape=[2], strides=[2], ceil_mode=1>(h)",
    "global average": "y = GlobalAveragePool(h)",
    "global average, flattened": "g = GlobalAveragePool(h)  y = Flatten(g)",
    "batch norm": "y = BatchNormalization<epsilon=0.0>(h, scale, zeros, zeros, ones)",
    "constant per channel": "y = Mul(h, c)",
    "constant per place": "y = Add(h, place)",
    "constant for all": "y = Sub(whole, h)",
    "slopes": "y = PRelu(h, c)",
    "sum of maps": "r = Relu(h)  y = Add(r, h)",
    "a map and a mean": "m = ReduceMax(h, i2)  y = Mul(h, m)",
    "a map and a mean of lower rank": "m = ReduceMax<keepdims=0>(h, i0)  y = Mul(h, m)",
    "comparison": "g = Greater(h, c)  r = Relu(h)  y = Where(g, h, r)",
    "concatenation of channels": "y = Concat<axis=1>(h, whole)",
    "concatenation of places": "r = Relu(h)  y = Concat<axis=-1>(h, r)",
    "split of channels": "a, q = Split<axis=1>(h, sizes)  y = Mul(a, q)",
    "maximum over places": "y = ReduceMax<keepdims=0>(h, last)",
    "maximum over channels": "y = ReduceMax(h, i1)",
    "maximum over all": "y = ReduceMax(h)",
    "maximum over channels and places": "y = ReduceMax<keepdims=0>(h, i12)",
    "padding": "y = Pad(h, pads, half)",
    "padding of one axis": 'y = Pad<mode="edge">(h, two_pads, , last)',
    "slice": "y = Slice(h, start, end, last, step)",
    "slice of every axis": "y = Slice(h, starts, ends)",
    "tiling": "y = Tile(h, twice)",
    "expansion": "m = ReduceMax(h, i2)  y = Expand(m, to_whole)",
    "resizing by a factor": "y = Resize(h, , wide)",
    "resizing to a size": "y = Resize(h, , , to_size)",
    "flattened for a layer": "r = Flatten(h)  y = MatMul(r, v)",
    "reshaped for a layer": "r = Reshape(h, flat)  y = MatMul(r, v)",
    "two outputs of one map": "r = Reshape(h, flat)  q = MatMul(r, v)  y = Relu(h)",
    "product of places": "y = MatMul(h, u)",
    "transposed and back": """t1 = Transpose<perm=[0,2,1]>(h)  r = Relu(t1)
        q = Transpose<perm=[0,2,1]>(r)  y = MaxPool<kernel_shape=[2]>(q)""",
    "unsqueezed": "u1 = Unsqueeze(h, i2)  y = Relu(u1)",
}
TEXT = "g (float[1,4,12] x) => (y) {{ h = MaxPool<kernel_shape=[3], pads=[1,1]>(x)  {} }}"


@pytest.mark.parametrize("body", BODIES)
def test_the_same_is_computed_to_the_bit(body, make_graph, keeps) -> None:
    model = make_graph(TEXT.format(BODIES[body]), **ARRAYS)
    outputs = [(value.name, shape_of(value)) for value in model.graph.outputs]
    keeps(two_dimensional, model)
    assert [(value.name, shape_of(value)) for value in model.graph.outputs] == outputs
    spatial = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "BatchNormalization", "Resize")
    for node in model.graph:
        if node.op_type in spatial:
            assert len(shape_of(node.inputs[0])) == 4


@pytest.mark.parametrize(
    "body", ["y = ReduceMean<axes=[2], keepdims=0>(h)", "y = Softmax<axis=1>(h)"]
)
def test_operators_of_old_opsets_keep_their_meaning(body, make_graph, run_graph) -> None:
    model = make_graph(TEXT.format(body), opset=11)
    x = RNG.standard_normal((1, 4, 12)).astype(np.float32)
    before = run_graph(model, x)
    two_dimensional(model)
    NameFixPass()(model)
    np.testing.assert_allclose(run_graph(model, x), before, rtol=1e-6)


def test_a_graph_without_spatial_layers_stays_as_it_is(make_graph) -> None:
    model = make_graph(
        "g (float[1,4,12] x) => (y) { a = MatMul(x, u)  r = Relu(a)  y = ReduceMax(r, i2) }",
        u=ARRAYS["u"],
        i2=ARRAYS["i2"],
    )
    two_dimensional(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu", "ReduceMax"]


def test_a_network_of_maps_stays_as_it_is(make_graph) -> None:
    model = make_graph(
        "g (float[1,4,8,8] x) => (y) { a = Conv(x, f)  y = Relu(a) }", f=numbers(2, 4, 3, 3)
    )
    two_dimensional(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]


def test_one_reshape_stands_at_each_end_and_none_between(make_graph) -> None:
    model = make_graph(
        """g (float[1,4,12] x) => (y) {
            s = Sign(x)  [first] a = Conv<pads=[1,1]>(s, w)  r = PRelu(a, slope)  m = MaxPool
            <kernel_shape=[2], strides=[2]>(r)  q = Add(m, m)  y = Relu(q) }""",
        w=ARRAYS["w"],
        slope=0.5,
    )
    two_dimensional(model)
    names = [node.op_type for node in model.graph]
    assert names == ["Reshape", "Sign", "Conv", "PRelu", "MaxPool", "Add", "Relu", "Reshape"]
    (conv,) = binary_convs(model)
    assert conv.facts.name == "first"
    assert conv.facts.weight_shape == (6, 4, 1, 3)
