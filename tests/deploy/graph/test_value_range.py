import numpy as np
import pytest

from bibench_deploy.graph.value_range import EVERYTHING, value_range

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "minus": -1.0, "two": 2.0, "half": 0.5,
    "shift": np.array([[[[-0.25]], [[0.5]]]]), "sizes": np.array([1, 18]),
    "scales": np.array([1, 1, 2, 1.5]), "roi": np.array([0, 0, -1, -1, 1, 1, 2, 2.0]),
    "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}  # fmt: skip
INF = np.inf

# Nodes from x, [1,2,3,3], to h: the interval of h.
BOUNDS = {
    "h = Neg(x)": EVERYTHING,
    "h = Relu(x)": (0, INF),
    "h = Clip(x, minus, two)": (-1, 2),
    "h = Clip(x, zero)": (0, INF),
    "a = Abs(x)  h = Neg(a)": (-INF, 0),
    "h = Sigmoid(x)": (0, 1),
    "h = HardSigmoid(x)": (0, 1),
    "h = Softmax(x)": (0, 1),
    "h = Tanh(x)": (-1, 1),
    "r = Relu(x)  h = Tanh(r)": (0, 1),
    "h = Mul(x, x)": (0, INF),
    "r = Relu(x)  h = LeakyRelu(r)": (0, INF),
    "h = LeakyRelu(x)": EVERYTHING,
    "r = Relu(x)  h = MaxPool<kernel_shape=[2,2]>(r)": (0, INF),
    "r = Relu(x)  h = AveragePool<kernel_shape=[2,2]>(r)": (0, INF),
    "r = Relu(x)  a = Add(r, one)  h = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(a)":
        (0, INF),
    "s = Sigmoid(x)  h = GlobalAveragePool(s)": (0, 1.0001),
    "s = Sigmoid(x)  h = Flatten(s)": (0, 1),
    "s = Sigmoid(x)  t = Reshape(s, sizes)  h = Transpose(t)": (0, 1),
    "s = Sigmoid(x)  t = Tanh(x)  h = Concat<axis=1>(s, t)": (-1, 1),
    "s = Sigmoid(x)  a = Add(s, one)  h = Pad(a, amounts)": (0, 2),
    "s = Sigmoid(x)  h = Pad(s, amounts, two)": (0, 2),
    "s = Sigmoid(x)  h = Add(s, shift)": (-0.25, 1.5),
    "s = Sigmoid(x)  h = Sub(one, s)": (0, 1),
    "s = Sigmoid(x)  h = Mul(s, shift)": (-0.25, 0.5),
    "r = Relu(x)  h = Mul(r, minus)": (-INF, 0),
    "r = Relu(x)  h = Mul(r, zero)": (0, 0),
    "r = Relu(x)  h = Div(r, two)": (0, INF),
    "r = Relu(x)  h = Div(two, r)": EVERYTHING,
    "r = Relu(x)  h = Sub(r, r)": EVERYTHING,
    "h = Max(x, half)": (0.5, INF),
    "h = Min(x, half)": (-INF, 0.5),
    "h = Exp(x)": (0, INF),
    "g = Greater(x, zero)  h = Cast<to=1>(g)": (0, 1),
    "g = Greater(x, zero)  h = Where(g, two, minus)": (-1, 2),
    "s = Sigmoid(x)  m = Mul(s, two)  h = Round(m)": (0, 2),
    'r = Relu(x)  h = Resize<mode="nearest">(r, , scales)': (0, INF),
    's = Sigmoid(x)  h = Resize<mode="linear">(s, , scales)': (0, 1.0001),
    's = Sigmoid(x)  h = Resize<mode="cubic">(s, , scales)': EVERYTHING,
    's = Sigmoid(x)  h = Resize<mode="linear", extrapolation_value=2.0,'
    ' coordinate_transformation_mode="tf_crop_and_resize">(s, roi, scales)': EVERYTHING,
}  # fmt: skip


@pytest.mark.parametrize("nodes", BOUNDS)
def test_the_interval_of_a_tensor_is_known_and_holds_its_numbers(
    nodes, make_graph, run_graph
) -> None:
    model = make_graph(f"g (float[1,2,3,3] x) => (h) {{ {nodes} }}", **CONSTANTS)
    low, high = value_range(model.graph.outputs[0])
    assert (low, high) == pytest.approx(BOUNDS[nodes])
    rng = np.random.default_rng(0)
    for scale in (0.1, 1, 30):
        numbers = run_graph(model, (scale * rng.standard_normal((1, 2, 3, 3))).astype(np.float32))
        assert (low <= numbers).all()
        assert (numbers <= high).all()


def test_a_long_chain_ends_in_no_knowledge_and_not_in_recursion(make_graph) -> None:
    steps = [f"h{i + 1} = Neg(h{i})" for i in range(3000)]
    text = "h0 = Relu(x)  " + "  ".join(steps)
    model = make_graph(f"g (float[1,2] x) => (float[1,2] h3000) {{ {text} }}")
    assert value_range(model.graph.outputs[0]) == EVERYTHING


def test_many_paths_to_one_tensor_are_followed_once(make_graph) -> None:
    steps = "  ".join(f"h{i + 1} = Add(h{i}, h{i})" for i in range(60))
    model = make_graph(f"g (float[1,2] x) => (float[1,2] h60) {{ h0 = Relu(x)  {steps} }}")
    assert value_range(model.graph.outputs[0]) == (0, INF)
