import dataclasses

import numpy as np
import pytest

from bibench_deploy.errors import ParityError
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.verify.parity import (
    SIGN_ROUNDING,
    GraphRunner,
    Observation,
    compare,
    proof_inputs,
    seeded_inputs,
)

RNG = np.random.default_rng(19)
TEXT = """g (float[1,4,6,6] x) => (y) {
    s = Sign(x)  [one] a = Conv<pads=[1,1,1,1]>(s, w)  b = Mul(a, alpha)  c = Add(b, beta)
    t = Sign(c)  [two] d = Conv<pads=[1,1,1,1]>(t, v)  e = Mul(d, tenth)
    p = GlobalAveragePool(e)  f = Flatten(p)  y = Gemm<transB=1>(f, head) }"""
ARRAYS = {
    "w": np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0),
    "v": np.where(RNG.standard_normal((8, 8, 3, 3)) >= 0, 1.0, -1.0),
    "alpha": RNG.uniform(0.5, 1, (8, 1, 1)),
    "beta": RNG.standard_normal((8, 1, 1)),
    "tenth": 0.1,
    "head": RNG.standard_normal((5, 8)),
}
INPUTS = seeded_inputs((1, 4, 6, 6), 4, 0)


@pytest.fixture(scope="module")
def model(make_graph):
    return make_graph(TEXT, **ARRAYS)


@pytest.fixture(scope="module")
def honest(model):
    """What an engine gives that is right to the last bit."""
    outputs, signs = [], [[], []]
    runner = GraphRunner(model, forced=True)
    for row in INPUTS:
        first = np.where(row[None] >= 0, np.float32(1), np.float32(-1))
        # The second layer's numbers depend on the first layer's signs alone.
        _, sources, _ = runner.run_forced(row[None], [first, np.ones((1, 8, 6, 6), np.float32)])
        second = np.where(sources[1] >= 0, np.float32(1), np.float32(-1))
        output, *_ = runner.run_forced(row[None], [first, second])
        outputs.append(output)
        signs[0].append(first)
        signs[1].append(second)
    return Observation(np.concatenate(outputs), tuple(np.concatenate(layer) for layer in signs))


def with_signs(observation: Observation, layer: int, change) -> Observation:
    signs = [array.copy() for array in observation.signs]
    change(signs[layer])
    return dataclasses.replace(observation, signs=tuple(signs))


def test_equal_engines_have_no_flips(model, honest) -> None:
    parity = compare(model, INPUTS, honest, "LCE")
    assert parity.to_json() == {
        "inputs": 4,
        "max_abs_error": 0.0,
        "max_abs_error_same_signs": 0.0,
        "top1_agreement": 1.0,
        "flip_rate": 0.0,
        "unexplained_flips": 0,
        "layers": (
            {"name": "one", "signs": 576, "flips": 0, "farthest_flip": 0.0},
            {"name": "two", "signs": 1152, "flips": 0, "farthest_flip": 0.0},
        ),
    }


def test_signs_that_the_graph_gives_as_well_are_compared(make_graph, honest) -> None:
    model = make_graph(TEXT.replace("=> (y)", "=> (y, t)"), **ARRAYS)
    assert compare(model, INPUTS, honest, "LCE").flip_rate == 0


def test_rounding_of_the_outputs_passes_and_is_told(model, honest) -> None:
    rounded = dataclasses.replace(honest, outputs=honest.outputs + np.float32(1e-6))
    parity = compare(model, INPUTS, rounded, "LCE")
    assert parity.max_abs_error == pytest.approx(1e-6, rel=0.3)
    assert parity.max_abs_error_same_signs == pytest.approx(1e-6, rel=0.3)


def test_a_flip_within_rounding_is_counted_and_explained(make_graph) -> None:
    """A number that is 1e-9 of its layer's range from zero may take either sign."""
    model = make_graph(TEXT, **ARRAYS)
    inputs = INPUTS[:1].copy()
    inputs[0, 1, 2, 3] = 1e-9
    first = np.where(inputs >= 0, np.float32(1), np.float32(-1))
    first[0, 1, 2, 3] = -1
    runner = GraphRunner(model, forced=True)
    _, sources, _ = runner.run_forced(inputs, [first, np.ones((1, 8, 6, 6), np.float32)])
    second = np.where(sources[1] >= 0, np.float32(1), np.float32(-1))
    output, *_ = runner.run_forced(inputs, [first, second])
    parity = compare(model, inputs, Observation(output, (first, second)), "LCE")
    assert parity.unexplained_flips == 0
    assert parity.flip_rate == pytest.approx(1 / (4 * 36 + 8 * 36))
    assert [layer.flips for layer in parity.layers] == [1, 0]
    assert 0 < parity.layers[0].farthest_flip < SIGN_ROUNDING
    # Each engine with its own signs gives other outputs; on the same signs they are equal.
    assert parity.max_abs_error > 1e-3
    assert parity.max_abs_error_same_signs == 0


@pytest.mark.parametrize("between", ["Tanh(c)", "Neg(c)", "LeakyRelu(c)"])
def test_rounding_of_a_sum_is_that_of_its_terms_behind_what_passes_it_on(
    between, model, make_graph
) -> None:
    """A sum of zero is 1e-7 where its terms are 1, and nearly that behind a Tanh."""
    other = make_graph(TEXT.replace("t = Sign(c)", f"n = {between}  t = Sign(n)"), **ARRAYS)
    signs = [np.ones((1, 4, 6, 6), np.float32), np.ones((1, 8, 6, 6), np.float32)]
    found, plain = (
        GraphRunner(graph, forced=True).run_forced(INPUTS[:1], signs)[2][1]
        for graph in (other, model)
    )
    assert (found >= plain).all()


@pytest.mark.parametrize(("layer", "name"), [(0, "one"), (1, "two")])
def test_a_flip_far_from_zero_names_its_layer(layer, name, model, honest) -> None:
    flipped = with_signs(honest, layer, lambda signs: np.negative(signs[2, 3], out=signs[2, 3]))
    with pytest.raises(ParityError) as raised:
        compare(model, INPUTS, flipped, "LCE")
    text = str(raised.value)
    assert text.startswith("LCE takes ")
    assert f"of its largest term from zero at {name};" in text


def test_the_boundary_between_rounding_and_error_is_rounding(make_graph) -> None:
    model = make_graph(
        "g (float[1,4] x) => (y) { s = Sign(x)  y = Gemm<transB=1>(s, w) }", w=np.ones((3, 4))
    )
    for factor, is_explained in ((0.9, True), (1.1, False)):
        inputs = np.array([[1, -1, 0.5, factor * SIGN_ROUNDING]], np.float32)
        signs = np.array([[1, -1, 1, -1]], np.float32)
        observed = Observation(np.zeros((1, 3), np.float32), (signs,))
        if is_explained:
            assert compare(model, inputs, observed, "LCE").flip_rate == 0.25
        else:
            with pytest.raises(ParityError, match="takes 1 of 4 signs otherwise"):
                compare(model, inputs, observed, "LCE")


def test_outputs_that_differ_on_the_same_signs_are_an_error(model, honest) -> None:
    wrong = honest.outputs.copy()
    wrong[3, 1] += np.float32(0.01)
    with pytest.raises(
        ParityError, match=r"differs from the ONNX graph by 0\.01 on the same signs"
    ):
        compare(model, INPUTS, dataclasses.replace(honest, outputs=wrong), "LCE")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("has_signs", [True, False])
def test_numbers_that_are_not_finite_are_an_error(number, has_signs, model, honest) -> None:
    broken = honest.outputs.copy()
    broken[0, 0] = number
    observed = Observation(broken, honest.signs if has_signs else None)
    with pytest.raises(ParityError, match="LCE gives numbers that are not finite"):
        compare(model, INPUTS, observed, "LCE")


def test_a_graph_whose_own_outputs_are_not_finite_is_an_error(make_graph) -> None:
    model = make_graph("g (float[1,4] x) => (y) { z = Mul(x, huge)  y = Mul(z, huge) }", huge=1e30)
    observed = Observation(np.zeros((1, 4), np.float32), None)
    with pytest.raises(ParityError, match="the ONNX graph gives numbers that are not finite"):
        compare(model, np.ones((1, 4), np.float32), observed, "LCE")


def test_outputs_of_another_shape_are_an_error(model, honest) -> None:
    observed = dataclasses.replace(honest, outputs=honest.outputs[:, :1])
    with pytest.raises(ParityError, match=r"gives outputs \[4, 1\], the ONNX graph \[4, 5\]"):
        compare(model, INPUTS, observed, "LCE")


@pytest.mark.parametrize("signs", [None, ()])
def test_without_signs_outputs_alone_are_compared(signs, model, honest) -> None:
    own = GraphRunner(model).run(INPUTS)
    parity = compare(model, INPUTS, Observation(own, signs), "PyTorch")
    assert (parity.flip_rate, parity.unexplained_flips) == (None, None)
    assert parity.max_abs_error_same_signs is None
    with pytest.raises(ParityError, match=r"PyTorch differs from the ONNX graph by 0\.01 "):
        compare(model, INPUTS, Observation(own + np.float32(0.01), signs), "PyTorch")


def test_agreement_of_the_largest_output_is_a_share(make_graph) -> None:
    model = make_graph("g (float[1,3] x) => (y) { y = Mul(x, k) }", k=1.0 + 2**-23)
    inputs = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], np.float32)
    outputs = inputs * np.float32(1 + 2**-23)
    outputs[1, 2] += np.float32(1e-6)
    assert compare(model, inputs, Observation(outputs, None), "LCE").top1_agreement == 0.75


def zeros_and_their_signs(count: int) -> tuple[np.ndarray, Observation]:
    """4000 numbers of which some are exactly 0, and what an engine gives that takes 0 for +1."""
    inputs = RNG.standard_normal((1, 4000)).astype(np.float32)
    inputs[0, :count] = 0
    signs = np.where(inputs >= 0, np.float32(1), np.float32(-1))
    return inputs, Observation(signs.sum(axis=1, keepdims=True), (signs,))


SIGN = "s = Sign(x)"
STEP = "l = Less(x, zero)  s = Where(l, minus, one)"


@pytest.fixture
def of_zeros(make_graph):
    def make(nodes: str):
        return make_graph(
            f"g (float[1,4000] x) => (y) {{ {nodes}  y = MatMul(s, w) }}",
            w=np.ones((4000, 1)),
            zero=0.0,
            one=1.0,
            minus=-1.0,
        )

    return make


def test_many_exact_zeros_before_a_sign_that_differs_there_are_an_error(of_zeros) -> None:
    inputs, observed = zeros_and_their_signs(40)
    with pytest.raises(ParityError, match=r"40 of 4000 numbers lie exactly on the threshold of"):
        compare(of_zeros(SIGN), inputs, observed, "LCE")


def test_a_few_exact_zeros_are_counted_as_flips(of_zeros) -> None:
    inputs, observed = zeros_and_their_signs(3)
    parity = compare(of_zeros(SIGN), inputs, observed, "LCE")
    assert parity.flip_rate == pytest.approx(3 / 4000)
    assert (parity.unexplained_flips, parity.max_abs_error) == (0, 3)


def test_zeros_before_the_projects_own_sign_are_no_matter(of_zeros) -> None:
    inputs, observed = zeros_and_their_signs(2000)
    assert compare(of_zeros(STEP), inputs, observed, "LCE").flip_rate == 0


def test_an_engine_that_hides_its_signs_may_differ_where_one_lies_on_the_edge(of_zeros) -> None:
    inputs, _ = zeros_and_their_signs(0)
    for nearest, is_explained in ((1e-9, True), (0.3, False)):
        inputs[np.abs(inputs) < 0.4] = 0.4
        inputs[0, 7] = nearest
        other = np.where(inputs >= 0, 1, -1).astype(np.float32)
        other[0, 7] = -1
        observed = Observation(other.sum(axis=1, keepdims=True), None)
        if is_explained:
            assert compare(of_zeros(STEP), inputs, observed, "PyTorch").max_abs_error == 2
        else:
            with pytest.raises(ParityError, match="PyTorch differs from the ONNX graph by 2 "):
                compare(of_zeros(STEP), inputs, observed, "PyTorch")


def test_places_that_a_layer_does_not_read_are_not_counted(model, honest) -> None:
    def forget(signs):
        signs[:, :, 0, 0] = np.nan

    # The second layer then reads +1 there, so only that its flips are not counted is tested.
    observed = with_signs(honest, 1, forget)
    outputs = np.concatenate(
        [
            GraphRunner(model, forced=True).run_forced(
                INPUTS[row : row + 1], [layer[row : row + 1] for layer in observed.signs]
            )[0]
            for row in range(len(INPUTS))
        ]
    )
    parity = compare(model, INPUTS, dataclasses.replace(observed, outputs=outputs), "LCE")
    assert parity.flip_rate == 0


def test_layers_that_share_a_sign_may_read_different_parts_of_it(make_graph, run_graph) -> None:
    model = make_graph(
        """g (float[1,4,6,6] x) => (y) {
            s = Sign(x)  a = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w)
            b = Conv<strides=[2,2]>(s, one)  y = Add(a, b) }""",
        w=ARRAYS["w"],
        one=ARRAYS["w"][:, :, :1, :1],
    )
    x = INPUTS[:1]
    whole = np.where(x >= 0, np.float32(1), np.float32(-1))
    picked = np.full_like(whole, np.nan)
    picked[:, :, ::2, ::2] = whole[:, :, ::2, ::2]
    output = run_graph(model, x)
    for signs in ((whole, picked), (picked, whole)):
        runner = GraphRunner(model, forced=True)
        np.testing.assert_array_equal(runner.run_forced(x, list(signs))[0], output)


def test_forced_signs_take_the_height_of_the_graphs_own(make_graph, run_graph) -> None:
    model = make_graph(
        """g (float[1,4] x) => (y) {
            g = GreaterOrEqual(x, zero)  s = Where(g, half, less)  y = Gemm<transB=1>(s, w) }""",
        zero=0.0,
        half=0.5,
        less=-0.5,
        w=np.array([[1.0, -1, 1, 1]]),
    )
    x = np.array([[1, -2, 3, -4]], np.float32)
    output, (source,), _ = GraphRunner(model, forced=True).run_forced(x, [np.sign(x)])
    np.testing.assert_array_equal(output, run_graph(model, x))
    np.testing.assert_array_equal(source, x)


def test_rounding_is_relative_to_what_was_added_up(make_graph) -> None:
    """A clip hides how large the terms were; their rounding stays."""
    model = make_graph(
        """g (float[1,4] x) => (y) {
            a = Mul(x, big)  b = Clip(a, low, high)  s = Sign(b)  y = Gemm<transB=1>(s, w) }""",
        big=1000.0, low=-1.0, high=1.0, w=np.ones((3, 4)),
    )  # fmt: skip
    x = np.array([[1, -1, 0.5, 0.9 * SIGN_ROUNDING]], np.float32)
    signs = np.array([[1, -1, 1, -1]], np.float32)
    observed = Observation(np.zeros((1, 3), np.float32), (signs,))
    assert compare(model, x, observed, "LCE").flip_rate == 0.25


def test_many_exact_zeros_are_no_chance(make_graph) -> None:
    model = make_graph(
        "g (float[1,4] x) => (y) { s = Sign(x)  y = Gemm<transB=1>(s, w) }", w=np.ones((3, 4))
    )
    observed = Observation(np.full((1, 3), 4, np.float32), (np.ones((1, 4), np.float32),))
    with pytest.raises(ParityError, match="2 of 4 numbers lie exactly on the threshold of"):
        compare(model, np.array([[1, 0, 0, 2]], np.float32), observed, "LCE")


def test_ties_that_the_source_decides_the_other_way_are_no_chance(of_zeros) -> None:
    inputs, observed = zeros_and_their_signs(40)
    strict = of_zeros("g = Greater(x, zero)  s = Where(g, one, minus)")
    with pytest.raises(ParityError, match=r"40 of 4000 .* the source makes -1 of them, LCE does n"):
        compare(strict, inputs, observed, "LCE")


def test_the_ties_of_a_small_layer_do_not_hide_behind_a_large_one(make_graph) -> None:
    model = make_graph(
        """g (float[1,4000] x) => (y) {
            l = Less(x, zero)  s = Where(l, minus, one)  [large] a = MatMul(s, w)
            t = Sign(a)  [small] y = MatMul(t, v) }""",
        w=np.tile([[1.0] * 10, [-1.0] * 10], (2000, 1)), v=np.ones((10, 3)),
        zero=0.0, one=1.0, minus=-1.0,
    )  # fmt: skip
    x = np.ones((1, 4000), np.float32)
    observed = Observation(np.full((1, 3), 10, np.float32), (x, np.ones((1, 10), np.float32)))
    with pytest.raises(ParityError, match="10 of 10 numbers lie exactly on the threshold of small"):
        compare(model, x, observed, "LCE")


def test_a_hidden_flip_explains_another_output_only_near_zero(make_graph) -> None:
    model = make_graph(
        "g (float[1,4] x) => (y) { s = Sign(x)  y = Gemm<transB=1>(s, w) }", w=np.ones((3, 4))
    )
    hidden = Observation(np.full((1, 3), 2, np.float32), None)
    near = np.array([[1, 1, 1, 1e-9]], np.float32)
    assert compare(model, near, hidden, "PyTorch").max_abs_error == 2
    with pytest.raises(ParityError, match="differs from the ONNX graph by 2"):
        compare(model, np.ones((1, 4), np.float32), hidden, "PyTorch")


def test_running_does_not_change_the_model(model) -> None:
    before = [node.op_type for node in model.graph], len(model.graph.inputs)
    GraphRunner(model, forced=True)
    assert ([node.op_type for node in model.graph], len(model.graph.inputs)) == before
    assert len(binary_convs(model)) == 2


def test_inputs_depend_on_the_seed_alone() -> None:
    assert np.array_equal(seeded_inputs((1, 3, 4), 2, 0), seeded_inputs((7, 3, 4), 2, 0))
    assert not np.array_equal(seeded_inputs((1, 3), 2, 0), seeded_inputs((1, 3), 2, 1))
    inputs = seeded_inputs((1, 3, 4), 5, 0)
    assert (inputs.shape, inputs.dtype) == ((5, 3, 4), np.float32)


def test_the_last_input_of_a_proof_holds_zeros_and_nothing_below() -> None:
    inputs, plain = proof_inputs((1, 3, 4), 5, 0), seeded_inputs((1, 3, 4), 5, 0)
    np.testing.assert_array_equal(inputs[:-1], plain[:-1])
    np.testing.assert_array_equal(inputs[-1], np.maximum(plain[-1], 0))
    assert (inputs[-1] == 0).any()


@pytest.mark.parametrize("operator", ["Greater", "GreaterOrEqual"])
def test_levels_and_threshold_of_the_graph_are_its_own(operator, make_graph) -> None:
    """Activations of 0 and 1 at a threshold beside zero, read behind a Flatten."""
    model = make_graph(
        f"""g (float[1,2,2,2] x) => (y) {{
            g = {operator}(x, third)  s = Cast<to=1>(g)  f = Flatten(s)  y = MatMul(f, w) }}""",
        third=0.3,
        w=np.where(RNG.standard_normal((8, 3)) >= 0, 1.0, -1.0),
    )
    inputs = seeded_inputs((1, 2, 2, 2), 3, 1)
    inputs[0, 0, 0, 0] = np.float32(0.3)
    is_high = inputs > np.float32(0.3)
    is_high[0, 0, 0, 0] = operator == "GreaterOrEqual"
    signs = np.where(is_high, np.float32(1), np.float32(-1)).reshape(3, 8)
    observed = Observation(GraphRunner(model).run(inputs), (signs,))
    parity = compare(model, inputs, observed, "LCE")
    assert (parity.flip_rate, parity.max_abs_error_same_signs) == (0, 0)
    signs[1] = -signs[1]
    with pytest.raises(ParityError, match="takes 8 of 24 signs otherwise"):
        compare(model, inputs, observed, "LCE")


@pytest.mark.parametrize("bias", [0, 1e6, 1e12])
def test_one_large_channel_hides_no_flip_of_another(bias, make_graph) -> None:
    offset = np.zeros((8, 1, 1))
    offset[0] = bias
    model = make_graph(TEXT, **{**ARRAYS, "beta": offset})
    first = np.where(INPUTS[:1] >= 0, np.float32(1), np.float32(-1))
    runner = GraphRunner(model, forced=True)
    _, sources, _ = runner.run_forced(INPUTS[:1], [first, np.ones((1, 8, 6, 6), np.float32)])
    second = np.where(sources[1] >= 0, np.float32(1), np.float32(-1))
    second[:, 5] *= -1
    output, *_ = runner.run_forced(INPUTS[:1], [first, second])
    with pytest.raises(ParityError, match=r"of 432 signs otherwise than the ONNX graph.* at two"):
        compare(model, INPUTS[:1], Observation(output, (first, second)), "LCE")


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_numbers_before_a_sign_that_are_not_finite_are_an_error(number, make_graph) -> None:
    offset = np.zeros((8, 1, 1))
    offset[3] = number
    model = make_graph(TEXT, **{**ARRAYS, "beta": offset})
    first = np.where(INPUTS[:1] >= 0, np.float32(1), np.float32(-1))
    second = np.ones((1, 8, 6, 6), np.float32)
    output, *_ = GraphRunner(model, forced=True).run_forced(INPUTS[:1], [first, second])
    with pytest.raises(ParityError, match="numbers that are not finite"):
        compare(model, INPUTS[:1], Observation(output, (first, second)), "LCE")


def test_a_graph_may_give_several_rows_for_one_input(make_graph) -> None:
    model = make_graph(
        """g (float[1,3,4] x) => (y) {
            s = Sign(x)  r = Reshape(s, rows)  y = Gemm<transB=1>(r, w) }""",
        rows=np.array([3, 4]),
        w=np.where(RNG.standard_normal((5, 4)) >= 0, 1.0, -1.0),
    )
    inputs = seeded_inputs((1, 3, 4), 2, 0)
    signs = np.where(inputs >= 0, np.float32(1), np.float32(-1))
    observed = Observation(GraphRunner(model).run(inputs), (signs,))
    assert observed.outputs.shape == (6, 5)
    assert compare(model, inputs, observed, "LCE").max_abs_error_same_signs == 0
