import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.fold_shifts import fold_shifts
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite

RNG = np.random.default_rng(8)
C = 4
X = RNG.standard_normal((1, C, 6, 6)).astype(np.float32)


def signs(*shape):
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


def per_channel(*numbers):
    return np.array(numbers or RNG.standard_normal(C)).reshape(1, -1, 1, 1)


def norm(name):
    """Parameters of a batch norm that makes numbers around 1 of 36 signs."""
    return {
        f"{name}_g": RNG.uniform(0.5, 1.5, C),
        f"{name}_b": RNG.standard_normal(C),
        f"{name}_m": RNG.standard_normal(C),
        f"{name}_v": RNG.uniform(20, 50, C),
    }


CONSTANTS = {
    "w1": signs(C, C, 3, 3),
    "w2": signs(C, C, 3, 3),
    "w3": signs(C, C, 3, 3),
    "f": RNG.standard_normal((C, C, 1, 1)),
    "p": RNG.standard_normal((C, C, 3, 3)),
    "fc": RNG.standard_normal((3, C)),
    "fcb": RNG.standard_normal(3),
    "wide": RNG.standard_normal((3, C * 9)),
    "slope": np.full((C, 1, 1), 0.25),
    "s1": per_channel(),
    "s2": per_channel(),
    "s3": per_channel(),
    "s4": per_channel(),
    "minus": -1.0,
    "one": 1.0,
    **norm("n1"),
    **norm("n2"),
    **norm("n3"),
}


def layer(result, source, weight, name):
    """A binary layer and its batch norm, in text."""
    return (
        f"{result}_s = Sign({source})  {result}_c = Conv<pads=[1,1,1,1]>({result}_s, {weight})  "
        f"{result} = BatchNormalization({result}_c, {name}_g, {name}_b, {name}_m, {name}_v)  "
    )


@pytest.fixture(scope="session")
def passed(make_graph, run_graph):
    """passed(body, x=X): the graph after the pass, which must compute as before."""

    def run(body, x=X, **constants):
        shape = ",".join(map(str, x.shape))
        text = f"g (float[{shape}] x) => (y) {{ {body} }}"
        used = {key: array for key, array in (CONSTANTS | constants).items() if key in body}
        before = make_graph(text, **used)
        canonical_binarization(before)
        fold_channel_affine(before)
        after = before.clone()
        fold_shifts(after)
        expected, found = run_graph(before, x), run_graph(after, x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        return after

    return run


def shifts(model) -> int:
    """How many constants are still added or subtracted."""
    return sum(
        node.op_type in ("Add", "Sub")
        and any(constant_of(value) is not None for value in node.inputs)
        for node in model.graph
    )


STEM = "c = Conv<pads=[1,1,1,1]>(x, p)  "
NORMED = STEM + "z = BatchNormalization(c, n1_g, n1_b, n1_m, n1_v)  "
VANISH = {
    "behind a batch norm": NORMED + "y = Add(z, s1)",
    "from the left": NORMED + "y = Add(s1, z)",
    "subtracted": NORMED + "y = Sub(z, s1)",
    "behind a convolution without a bias": STEM + "y = Add(c, s1)",
    "behind a fully connected layer": "m = GlobalAveragePool(x)  r = Flatten(m)"
    "  t = Gemm<transB=1>(r, fc, fcb)  y = Add(t, fcb)",
    "behind a sum with something computed": NORMED + "t = Add(x, z)  y = Add(t, s1)",
    "behind another shift": "t = Relu(x)  a = Add(t, s1)  b = Add(a, s2)  q = Conv(b, f)"
    "  y = Relu(q)",
    "behind a max pooling": NORMED
    + "t = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(z)  y = Add(t, s1)",
    "behind an average pooling": NORMED + "t = AveragePool<kernel_shape=[2,2]>(z)  y = Add(t, s1)",
    "behind a concatenation": NORMED + "o = Conv(x, p)  k = Conv<pads=[1,1,1,1]>(o, p, n2_b)"
    "  z1 = MaxPool<kernel_shape=[3,3]>(z)  t = Concat<axis=1>(z1, k)  y = Add(t, eight)",
    "into a convolution without padding": "t = Relu(x)  a = Add(t, s1)  y = Conv(a, p)",
    "into a strided 1×1 convolution": "t = Relu(x)  a = Add(t, s1)"
    "  y = Conv<strides=[2,2]>(a, f, n2_b)",
    "into a batch norm": "t = Relu(x)  a = Add(t, s1)"
    "  y = BatchNormalization(a, n1_g, n1_b, n1_m, n1_v)",
    "through pooling into the classifier": "t = Relu(x)  a = Add(t, s1)  m = GlobalAveragePool(a)"
    "  r = Flatten(m)  y = Gemm<transB=1>(r, fc, fcb)",
    "through a mean into a product and its bias": "t = Relu(x)  a = Add(t, s1)"
    "  m = ReduceMean<keepdims=0>(a, axes)  q = MatMul(m, fct)  y = Add(q, fcb)",
    "through a flattened map": "t = Relu(x)  a = Add(t, s1)"
    "  k = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)  r = Flatten(k)"
    "  y = Gemm<transB=1>(r, wide, fcb)",
    "to both readers": "t = Relu(x)  a = Add(t, s1)  q = Conv(a, f)  r = Conv<strides=[1,1]>(a, f)"
    "  u = Relu(q)  v = Relu(r)  y = Add(u, v)",
    "twice into one sum": "t = Relu(x)  a = Add(t, s1)  k = MaxPool<kernel_shape=[1,1]>(a)"
    "  u = Add(a, k)  y = Conv(u, f)",
}  # fmt: skip
MORE = {
    "eight": RNG.standard_normal((1, 2 * C, 1, 1)),
    "axes": np.array([2, 3]),
    "fct": RNG.standard_normal((C, 3)),
}


@pytest.mark.parametrize("form", VANISH)
def test_a_shift_vanishes(form, passed) -> None:
    body = VANISH[form]
    more = {key: array for key, array in MORE.items() if key in body}
    if "into a product" in form:
        # One Add is left, and takes the other over.
        assert shifts(passed(body, **more)) == 1
    else:
        assert shifts(passed(body, **more)) == 0


STAYS = {
    "before a sign of what nothing can shift": "t = Relu(x)  a = Add(t, s1)  s = Sign(a)"
    "  y = Conv(s, w1)",
    "before a convolution with padding": "t = Relu(x)  a = Add(t, s1)"
    "  y = Conv<pads=[1,1,1,1]>(a, p)",
    "in an output": "t = Relu(x)  y = Add(t, s1)",
    "in the input": "a = Add(x, s1)  t = Relu(a)  y = Conv(t, f)",
    "before an average pooling with padding": "t = Relu(x)  a = Add(t, s1)"
    "  k = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)  y = Conv(k, f)",
    "behind what a relu reads too": NORMED + "a = Add(z, s1)  t = Relu(z)  u = Relu(a)"
    "  y = Add(t, u)",
    "behind a clip": "t = Clip(x, minus, one)  a = Add(t, s1)  u = Relu(a)  y = Conv(u, f)",
    "of one number for each column": NORMED + "y = Add(z, columns)",
    "that the shape depends on": "m = GlobalAveragePool(x)  a = Add(m, s1)  t = Add(a, map)"
    "  y = Relu(t)",
}  # fmt: skip


@pytest.mark.parametrize("form", STAYS)
def test_a_shift_stays(form, passed) -> None:
    body = STAYS[form]
    more = {"columns": RNG.standard_normal(6), "map": RNG.standard_normal((1, C, 6, 6))}
    model = passed(body, **{key: array for key, array in more.items() if key in body})
    assert shifts(model) == (2 if "map" in body else 1)


def test_the_shifts_of_a_chain_of_residual_layers_all_vanish(passed) -> None:
    body = NORMED + "  ".join(
        f"a{i} = Add({before}, s{i})  {layer(f'l{i}', f'a{i}', f'w{i}', f'n{i}')} "
        f"r{i} = Add(l{i}, {before})"
        for i, before in ((1, "z"), (2, "r1"), (3, "r2"))
    )
    model = passed(body + "  m = GlobalAveragePool(r3)  f1 = Flatten(m)"
                   "  y = Gemm<transB=1>(f1, fc, fcb)")  # fmt: skip
    assert shifts(model) == 0
    assert sum(node.op_type == "Add" for node in model.graph) == 3


def test_a_chain_that_a_strided_shortcut_divides_loses_its_shifts_too(passed) -> None:
    body = (
        NORMED
        + "a1 = Add(z, s1)  "
        + layer("l1", "a1", "w1", "n1")
        + "k = AveragePool<kernel_shape=[2,2], strides=[2,2]>(z)  q = Conv(k, f)"
        "  d = BatchNormalization(q, n2_g, n2_b, n2_m, n2_v)"
        "  l2 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(l1)  y = Add(l2, d)"
    )
    assert shifts(passed(body)) == 0


def reactnet_layer(i, before):
    """RSign, a binary layer, the shortcut and RPReLU, in text; gives o1, o2 …"""
    return (
        f"a{i} = Add({before}, s{i})  {layer(f'l{i}', f'a{i}', f'w{i}', f'n{i}')}"
        f"r{i} = Add(l{i}, {before})  b{i} = Add(r{i}, s4)  p{i} = PRelu(b{i}, slope)"
        f"  o{i} = Add(p{i}, s1)  "
    )


def test_of_the_three_shifts_of_a_reactnet_layer_one_stays(passed) -> None:
    body = NORMED + reactnet_layer(1, "z") + reactnet_layer(2, "o1") + reactnet_layer(3, "o2")
    model = passed(body + "m = GlobalAveragePool(o3)  f1 = Flatten(m)"
                   "  y = Gemm<transB=1>(f1, fc, fcb)")  # fmt: skip
    # The first block's goes into the stem's batch norm.
    assert shifts(model) == 2
    assert sum(node.op_type == "PRelu" for node in model.graph) == 3


def test_two_signs_of_one_tensor_with_different_shifts_keep_one(passed) -> None:
    body = (
        NORMED
        + "a1 = Add(z, s1)  a2 = Add(z, s2)  "
        + layer("l1", "a1", "w1", "n1")
        + layer("l2", "a2", "w2", "n2")
        + "y = Add(l1, l2)"
    )
    assert shifts(passed(body)) == 1


def test_with_one_shift_both_vanish(passed) -> None:
    body = (
        NORMED
        + "a1 = Add(z, s1)  a2 = Add(z, s1)  "
        + layer("l1", "a1", "w1", "n1")
        + layer("l2", "a2", "w2", "n2")
        + "y = Add(l1, l2)"
    )
    assert shifts(passed(body)) == 0


DETOUR = NORMED + "a1 = Add(z, s1)  " + layer("l1", "a1", "w1", "n1") + "y = Add(l1, z)"


def test_a_shift_far_larger_than_the_numbers_it_is_added_to_takes_no_detour(passed) -> None:
    assert shifts(passed(DETOUR)) == 0
    assert shifts(passed(DETOUR, s1=per_channel(0.1, 0.1, 1e4, 0.1))) == 1


def test_that_does_not_hold_where_a_sign_alone_reads_it(passed) -> None:
    body = NORMED + "a1 = Add(z, s1)  " + layer("y", "a1", "w1", "n1")
    assert shifts(passed(body, s1=per_channel(0.1, 0.1, 1e4, 0.1))) == 0


def test_what_says_which_sign_zero_has_stays(make_graph) -> None:
    model = make_graph(
        f"g (float[1,{C},6,6] x) => (y) {{ {NORMED} b = Greater(z, zero)  d = Where(b, one, minus)"
        "  y = Conv(d, w1) }",
        **{key: array for key, array in CONSTANTS.items() if key in NORMED + "oneminusw1"},
        zero=0.0,
    )
    canonical_binarization(model)
    fold_shifts(model)
    assert shifts(model) == 1


def test_sums_are_in_double_precision_and_rounded_once(passed) -> None:
    model = passed(STEM + "t = Add(c, s1)  u = Add(t, s2)  y = Add(u, s3)")
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    whole = sum(CONSTANTS[key].astype(np.float32).astype(np.float64) for key in ("s1", "s2", "s3"))
    np.testing.assert_array_equal(constant_of(conv.inputs[2]), whole.reshape(-1).astype(np.float32))


def test_a_constant_that_several_nodes_share_is_changed_for_one(passed) -> None:
    body = (
        NORMED + "o = BatchNormalization(x, n1_g, n1_b, n1_m, n1_v)  u = Add(z, s1)  y = Add(u, o)"
    )
    assert shifts(passed(body)) == 0


# Without signs: one that flips by rounding would be no error.
OPERATIONS = ["shift", "relu", "norm", "pool", "residual"]


@settings(max_examples=60, deadline=None)
@given(chain=st.lists(st.sampled_from(OPERATIONS), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_any_chain_computes_the_same(passed, chain, seed) -> None:
    rng = np.random.default_rng(seed)
    body, value, constants = NORMED, "z", {}
    earlier = ["z"]
    for index, operation in enumerate([*chain, "shift", "norm"]):
        new = f"v{index}"
        if operation == "shift":
            constants[f"k{index}q"] = rng.standard_normal((1, C, 1, 1))
            body += f"{new} = Add({value}, k{index}q)  "
        elif operation == "relu":
            body += f"{new} = Relu({value})  "
        elif operation == "norm":
            body += f"{new} = BatchNormalization({value}, n2_g, n2_b, n2_m, n2_v)  "
        elif operation == "pool":
            body += f"{new} = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({value})  "
        else:
            body += f"{new} = Add({value}, {earlier[rng.integers(len(earlier))]})  "
        value = new
        earlier.append(new)
    passed(body + f"y = Relu({value})", **constants)


CHAINS = {
    "ReActNet": (
        reactnet_layer(1, "z") + reactnet_layer(2, "o1") + reactnet_layer(3, "o2"),
        "o3",
        # The first shift is the stem's bias.
        [
            *("LceQuantize", "LceBconv2d", "ADD", "PRELU"),
            *("ADD", "LceQuantize", "LceBconv2d", "ADD", "PRELU") * 2,
        ],
    ),
    "Bi-Real Net with RSign": (
        "".join(
            f"a{i} = Add({before}, s{i})  {layer(f'l{i}', f'a{i}', f'w{i}', f'n{i}')}"
            f"r{i} = Add(l{i}, {before})  "
            for i, before in ((1, "z"), (2, "r1"), (3, "r2"))
        ),
        "r3",
        ["LceQuantize", "LceBconv2d", "ADD"] * 3,
    ),
    "RSign behind a clip": (
        "h1 = Clip(z, minus, one)  a1 = Add(h1, tenth)  "
        + layer("l1", "a1", "w1", "n1")
        + "h2 = Clip(l1, minus, one)  a2 = Add(h2, tenth)  "
        + layer("l2", "a2", "w2", "n2"),
        "l2",
        ["LceQuantize", "LceBconv2d"] * 2,
    ),
}


@pytest.mark.parametrize("form", CHAINS)
def test_larq_compute_engine_runs_no_operator_more_than_an_expert_writes(
    form, make_graph, run_graph, lce_writer, tmp_path
) -> None:
    body, end, expected = CHAINS[form]
    text = (
        f"g (float[1,{C},6,6] x) => (y) {{ {NORMED} {body} m = GlobalAveragePool({end})"
        "  f1 = Flatten(m)  y = Gemm<transB=1>(f1, fc, fcb) }"
    )
    constants = {**CONSTANTS, "tenth": per_channel(0.1, -0.2, 0.3, -0.4)}
    graph = make_graph(text, **{key: array for key, array in constants.items() if key in text})
    written = lce_writer.write(TARGET.lower(graph), tmp_path)
    names = [node.name for node in read_tflite(written.files["model"]).operators]
    assert names == ["CONV_2D", *expected, "AVERAGE_POOL_2D", "FULLY_CONNECTED"]
    seen = written.execute(X, wants_signs=False).outputs
    np.testing.assert_allclose(seen, run_graph(graph, X), rtol=0, atol=1e-4)
