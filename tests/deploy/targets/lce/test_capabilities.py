"""Each refusal has a graph that it stops, and a twin that differs in one thing and is held."""

import re

import numpy as np
import pytest

from bibench_deploy.targets.lce import TARGET

RNG = np.random.default_rng(7)


def signs(*shape: int):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


ARRAYS = {
    "w": signs(8, 4, 3, 3),
    "square": signs(4, 4, 3, 3),
    "grouped": signs(64, 1, 3, 3),
    "f": RNG.standard_normal((8, 4, 3, 3)),
    "f_depth": RNG.standard_normal((64, 1, 3, 3)),
    "f_volume": RNG.standard_normal((8, 4, 3, 3, 3)),
    "t": RNG.standard_normal((4, 8, 2, 2)),
    "t_signs": signs(4, 8, 2, 2),
    "v": RNG.standard_normal((256, 3)),
    "v_signs": signs(256, 3),
    "vector": RNG.standard_normal(8),
    "alpha": RNG.uniform(1, 2, (8, 1, 1)),
    "rows": RNG.uniform(1, 2, (6, 1)),
    "one": 1.0, "minus": -1.0, "zero": 0.0, "quarter": 0.25,
    "ones": np.ones(4), "zeros": np.zeros(4),
    "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "too_far": np.array([0, 0, 8, 0, 0, 0, 0, 0]), "far": np.array([0, 0, 7, 0, 0, 0, 0, 0]),
    "twice_round": np.array([0, 0, 9, 0, 0, 0, 0, 0]),
    "height_width": np.array([2, 3]),
    "all_but_batch": np.array([1, 2, 3]),
    "six": np.array([1, 2, 2, 8, 2, 4]), "seven": np.array([1, 2, 2, 2, 4, 2, 4]),
    "start": np.array([5]), "end": np.array([2]), "later": np.array([7]), "two": np.array([2]),
    "wide": np.array([1, 1, 2, 2], np.float32), "deep": np.array([1, 2, 1, 1], np.float32),
}  # fmt: skip
MAP = "g (float[1,4,8,8] x) => (y) {{ {} }}"
WIDE = "g (float[1,64,8,8] x) => (y) {{ {} }}"
TWO = "g (float[1,4,8,8] x, float[1,4,8,8] z) => (y) {{ {} }}"

# Name: (words of the refusal, graph, what is refused in it, what is held).
CASES = {
    "scale per row": (
        "spatial scale", MAP, "s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, rows)",
        "s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, alpha)"),
    "scale computed from the input": (
        "re-scaled at run time by m", MAP,
        "m = ReduceMean(x, all_but_batch)  s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, m)",
        "s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, alpha)"),
    "many groups": (
        "binary convolution of 64 groups", WIDE,
        "s = PlusMinus(x)  y = Conv<group=64>(s, grouped)", "y = Conv<group=64>(x, f_depth)"),
    "operator": (
        "operator Trilu is not supported; write it with other operators", MAP,
        "y = Trilu(x)", "y = Exp(x)"),
    "operator with a way out": (
        "operator Einsum is not supported; write it with torch.matmul", MAP,
        'y = Einsum<equation="bchw->bwhc">(x)', "y = Transpose<perm=[0,3,2,1]>(x)"),
    "weights of several magnitudes": (
        "reads the signs of x, but its own weights are not binary", MAP,
        "s = PlusMinus(x)  y = Conv(s, f)", "s = PlusMinus(x)  y = Conv(s, w)"),
    "signs before a padding and a reshape": (
        "reads the signs of x, but its own weights are not binary", MAP,
        "s = PlusMinus(x)  r = Reshape(s, flat)  y = MatMul(r, v)",
        "s = PlusMinus(x)  r = Reshape(s, flat)  y = MatMul(r, v_signs)"),
    "binary weights on signs that are padded around": (
        'reads the signs of x, and its weights are binary, but p pads them in mode "wrap"', MAP,
        's = PlusMinus(x)  p = Pad<mode="wrap">(s, amounts)  y = Conv(p, w)',
        'p = Pad<mode="wrap">(x, amounts)  s = PlusMinus(p)  y = Conv(s, w)'),
    "binary weights on levels that are padded with a third": (
        "its padding is neither of their levels, 0.25 and 1, nor halfway between", MAP,
        "g = Greater(x, zero)  s = Where(g, one, quarter)  y = Conv<pads=[1,1,1,1]>(s, w)",
        "g = Greater(x, zero)  s = Where(g, one, quarter)  y = Conv(s, w)"),
    "binary weights on pooled signs": (
        "its weights are binary, but p pools them first; pool before the sign", MAP,
        "s = PlusMinus(x)  p = MaxPool<kernel_shape=[2,2]>(s)  y = Conv(p, w)",
        "p = MaxPool<kernel_shape=[2,2]>(x)  s = PlusMinus(p)  y = Conv(s, w)"),
    "binary weights on concatenated signs": (
        "its weights are binary, but c concatenates them with others", MAP,
        "s = PlusMinus(x)  n = Neg(s)  c = Concat<axis=3>(s, n)  y = Conv(c, w)",
        "s = PlusMinus(x)  c = Concat<axis=3>(s, x)  y = Conv(c, w)"),
    "transposed binary convolution": (
        "a transposed convolution of the signs of x", MAP,
        "s = PlusMinus(x)  y = ConvTranspose(s, t_signs)", "y = ConvTranspose(x, t)"),
    "computed kernel": (
        "parameters of this Conv are computed", "g (float[4,4,1,1] x) => (y) {{ {} }}",
        "a = Tanh(x)  y = Conv(x, a)", None),
    "computed parameters": (
        "parameters of this Clip are computed", MAP,
        "m = ReduceMax<keepdims=0>(x)  y = Clip(x, zero, m)", "y = Clip(x, zero, one)"),
    "batch norm in training": (
        "export the model after model.eval()", MAP,
        "y, a, b = BatchNormalization<training_mode=1>(x, ones, zeros, zeros, ones)",
        "y = BatchNormalization(x, ones, zeros, zeros, ones)"),
    "indices of a max pooling": (
        "a max pooling whose indices are read", MAP,
        "p, i = MaxPool<kernel_shape=[2,2]>(x)  j = Cast<to=1>(i)  y = Add(j, p)",
        "y, i = MaxPool<kernel_shape=[2,2]>(x)"),
    "cast to half": (
        "is FLOAT16; keep the model in float32", MAP,
        "a = Cast<to=10>(x)  y = Cast<to=1>(a)", "a = Cast<to=6>(x)  y = Cast<to=1>(a)"),
    "seven dimensions": (
        "has 7 dimensions; use at most 6", MAP,
        "r = Reshape(x, seven)  y = Flatten(r)", "r = Reshape(x, six)  y = Flatten(r)"),
    "arithmetic in six dimensions": (
        "has 6 dimensions; use at most 5", MAP,
        "r = Reshape(x, six)  q = Relu(r)  y = Flatten(q)",
        "q = Relu(x)  r = Reshape(q, six)  y = Flatten(r)"),
    "product with a vector": (
        "a product with a vector", MAP, "y = MatMul(x, vector)", "y = Mul(x, vector)"),
    "last of equal numbers": (
        "the last of several equal numbers", MAP,
        "i = ArgMax<axis=1, select_last_index=1>(x)  y = Cast<to=1>(i)",
        "i = ArgMax<axis=1>(x)  y = Cast<to=1>(i)"),
    "reflection of too much": (
        "reflects more numbers than there are", MAP,
        'y = Pad<mode="reflect">(x, too_far)', 'y = Pad<mode="reflect">(x, far)'),
    "wrapping twice": (
        "wraps around more than once", MAP,
        'y = Pad<mode="wrap">(x, twice_round)', 'y = Pad<mode="wrap">(x, too_far)'),
    "empty slice": (
        "a slice that is empty", MAP,
        "a = Slice(x, start, end, two)  y = Concat<axis=2>(a, x)",
        "a = Slice(x, start, later, two)  y = Concat<axis=2>(a, x)"),
    "resizing of channels": (
        "resize height and width of a map only", MAP,
        "y = Resize(x, , deep)", "y = Resize(x, , wide)"),
    "cubic resizing": (
        "resizes by cubic interpolation", MAP,
        'y = Resize<mode="cubic">(x, , wide)', 'y = Resize<mode="linear">(x, , wide)'),
    "antialias": (
        "resizes with antialias", MAP,
        'y = Resize<mode="linear", antialias=1>(x, , wide)',
        'y = Resize<mode="linear">(x, , wide)'),
    "symmetric places": (
        "places numbers by half_pixel_symmetric", MAP,
        'y = Resize<coordinate_transformation_mode="half_pixel_symmetric">(x, , wide)',
        'y = Resize<coordinate_transformation_mode="half_pixel">(x, , wide)'),
    "local response norm of even size": (
        "use odd size", MAP, "y = LRN<size=4>(x)", "y = LRN<size=5>(x)"),
    "two outputs": (
        "gives 2 outputs", MAP.replace("(y)", "(y, z)"), "z = Sigmoid(x)  y = Relu(x)", None),
    "pooling of a volume": (
        "a pooling of a volume",
        "g (float[1,4,8,8] x) => (y) {{ u = Unsqueeze(x, two)  {} }}",
        "y = MaxPool<kernel_shape=[1,2,2]>(u)", None),
    "single number": (
        "the graph gives y, a single number; keep a dimension", MAP,
        "y = ReduceMean<keepdims=0>(x)", "y = ReduceMean(x)"),
    "two inputs": ("has 2 inputs (x, z)", TWO, "y = Add(x, z)", None),
    "volume": (
        "has 5 dimensions; give it 2 (N, F), 3 (N, C, L) or 4 (N, C, H, W)",
        "g (float[1,4,8,8,8] x) => (y) {{ {} }}", "y = Relu(x)", None),
    "convolution of a volume": (
        "a convolution of a volume",
        "g (float[1,4,8,8] x) => (y) {{ u = Unsqueeze(x, two)  {} }}", "y = Conv(u, f_flat)", None),
}  # fmt: skip
ARRAYS |= {
    "flat": np.array([1, -1]),
    "f_flat": RNG.standard_normal((8, 4, 1, 3, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_graph_is_refused_for_this_and_its_twin_is_held(case, make_graph) -> None:
    words, text, refused, held = CASES[case]
    reasons = [str(item) for item in TARGET.refusals(make_graph(text.format(refused), **ARRAYS))]
    assert any(words in reason for reason in reasons), reasons
    if held is not None:
        assert TARGET.refusals(make_graph(text.format(held), **ARRAYS)) == []


@pytest.mark.parametrize("case", CASES)
def test_a_reason_names_a_node_and_what_to_do(case, make_graph) -> None:
    words, text, refused, _ = CASES[case]
    model = make_graph(text.format(refused), **ARRAYS)
    reason = next(text for item in TARGET.refusals(model) if words in (text := str(item)))
    names = [node.name for node in model.graph]
    assert reason.partition(":")[0] in names or reason.startswith("the graph")
    assert re.search(r"; \w+|which LCE has not", reason)


def test_a_graph_that_gives_no_numbers_is_refused(make_graph) -> None:
    text = "g (float[1,4] x) => (bool[1,4] y) { y = Greater(x, zero) }"
    (reason,) = TARGET.refusals(make_graph(text, **ARRAYS))
    expected = "the graph gives y, which is true or false; return numbers, by .float()"
    assert str(reason) == expected


def test_every_reason_is_given_at_once(make_graph) -> None:
    nodes = "a = Trilu(x)  s = Sign(a)  b = Conv(s, f)  y = LRN<size=4>(b)"
    reasons = TARGET.refusals(make_graph(MAP.format(nodes), **ARRAYS))
    assert [(item.rule, item.node) for item in reasons] == [
        ("unsupported-operator", "a"), ("float-weights-on-signs", "b"),
        ("operator-form", "y"),
    ]  # fmt: skip


def test_operators_of_other_domains_are_named_with_their_domain(make_proto, tmp_path) -> None:
    import onnx

    from bibench_deploy.graph.load import load_graph

    proto = make_proto("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(proto, tmp_path / "model.onnx")
    (reason,) = TARGET.refusals(load_graph(tmp_path / "model.onnx"))
    assert reason.rule == "unknown-domain"
    assert str(reason).startswith("y: operator com.example.Relu is not supported; ")


def test_one_sign_may_feed_several_layers_and_a_sum(make_graph) -> None:
    nodes = """s = PlusMinus(x)  a = Conv<pads=[1,1,1,1]>(s, square)
        b = Conv<pads=[1,1,1,1]>(s, square)  c = Add(a, b)  y = Add(c, s)"""
    assert TARGET.refusals(make_graph(MAP.format(nodes), **ARRAYS)) == []
