"""Each trap of daBNN's engine: the writer goes around it, or the target refuses it.

What the engine does was seen by running it, unmodified, on x86-64 and ARMv8.
"""

import numpy as np
import pytest

from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.dabnn import TARGET
from bibench_deploy.targets.dabnn.flatbuffer import read_dab
from bibench_deploy.targets.dabnn.schema import Operator

RNG = np.random.default_rng(3)


def signs(*shape: int) -> np.ndarray:
    return np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0)


def binary(channels: int, size: int, outputs: int, kernel: int = 3, stride: int = 1,
           more: str = "", padding: int = 0,
           sign: str = "Less(x, zero)  s = Where(b, low, high)") -> tuple[str, dict]:  # fmt: skip
    """A graph of one binary convolution, and its weight."""
    attributes = f"strides=[{stride},{stride}], pads=[{','.join([str(padding)] * 4)}]{more}"
    text = f"""g (float[1,{channels},{size},{size}] x) => (y) {{
        b = {sign}
        [layer] c = Conv<{attributes}>(s, w)  y = Mul(c, k) }}"""
    arrays = {
        "w": signs(outputs, channels, kernel, kernel), "k": np.full((outputs, 1, 1), 0.5),
        "zero": 0.0, "low": -1.0, "high": 1.0,
    }  # fmt: skip
    return text, arrays


@pytest.fixture
def one_layer(make_graph):
    def make(*sizes: int, **more):
        text, arrays = binary(*sizes, **more)
        return make_graph(text, **arrays)

    return make


# 1. Padding is −1, never 0.


def test_1_zero_padding_is_refused_with_both_ways_out(one_layer) -> None:
    (refusal,) = TARGET.refusals(one_layer(8, 8, 8, padding=1))
    assert (refusal.rule, refusal.node) == ("zero-padding", "layer")
    assert "--padding exact" in refusal.hint
    assert "--padding minus-one" in refusal.hint


def test_1_a_border_makes_it_exact_and_tells_what_it_costs(one_layer, proved) -> None:
    written, parity = proved(one_layer(8, 8, 8, padding=1), WriteOptions(padding="exact"))
    assert parity.flip_rate == parity.max_abs_error == 0
    assert written.padding == {"mode": "exact", "layers": 1, "size_bytes": 2048, "adds": 512}
    (layer,) = written.layers
    assert layer["actual_bytes"] == 8 * 16 + 2 * 8 * 4 + 2048


def test_1_minus_one_is_another_network_and_proved_to_be_that_one(
    one_layer, proved, run_graph
) -> None:
    model = one_layer(8, 8, 8, padding=1)
    written, parity = proved(model, WriteOptions(padding="minus-one"))
    assert parity.flip_rate == parity.max_abs_error == 0
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 8)).astype(np.float32)
    seen, before = written.execute(x).outputs, run_graph(model, x)
    np.testing.assert_array_equal(seen[:, :, 1:-1, 1:-1], before[:, :, 1:-1, 1:-1])
    assert (seen != before)[:, :, 0].any()


def test_1_padding_that_is_minus_one_already_costs_nothing(make_graph, proved) -> None:
    model = make_graph(
        """g (float[1,8,8,8] x) => (y) { s = PlusMinus(x)  p = Pad(s, amounts, minus)
            y = Conv(p, w) }""",
        w=signs(8, 8, 3, 3), amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]), minus=-1.0,
    )  # fmt: skip
    written, parity = proved(model)
    assert written.padding is None
    assert parity.max_abs_error == 0


def test_1_padding_with_plus_one_is_corrected_too(make_graph, proved, refused) -> None:
    model = make_graph(
        """g (float[1,8,8,8] x) => (y) { s = PlusMinus(x)  p = Pad(s, amounts, one)
            [layer] y = Conv(p, w) }""",
        w=signs(8, 8, 3, 3), amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]), one=1.0,
    )  # fmt: skip
    assert refused(model) == [("zero-padding", "layer")]
    assert proved(model, WriteOptions(padding="exact"))[1].max_abs_error == 0


@pytest.mark.parametrize("layer", ["Conv(p, w)", "Conv<strides=[2,2]>(p, w)"])
def test_1_float_layers_pad_with_any_number_too(layer, make_graph, proved) -> None:
    model = make_graph(
        f"g (float[1,8,8,8] x) => (y) {{ p = Pad(x, amounts, minus)  y = {layer} }}",
        w=RNG.standard_normal((8, 8, 3, 3)), minus=-1.0,
        amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    )  # fmt: skip
    assert proved(model)[1].max_abs_error < 1e-4


# 2. sign(0) is −1.

FROM_ZERO = "b = Less(t, zero)  s = Where(b, low, high)"
ABOVE_ZERO = "b = Greater(t, zero)  s = Where(b, high, low)"
INNER = "h = Less(x, zero)  q = Where(h, low, high)  d = Conv(q, v)"


@pytest.mark.parametrize("sign", [FROM_ZERO, ABOVE_ZERO])
@pytest.mark.parametrize(
    "before",
    [
        "t = Mul(x, two)",
        "n = Mul(x, two)  t = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(n)",
        # The input itself, which must not be overwritten.
        "t = Identity(x)",
        # Sums of a layer, where 0 is common: alone, behind a sum of maps, behind a pooling.
        f"{INNER}  t = Mul(d, k)",
        f"{INNER}  e = Mul(d, k)  t = Add(e, x)",
        f"{INNER}  e = Mul(d, k)  t = MaxPool<kernel_shape=[1,1]>(e)",
        # What has been lifted from 0 is turned into a negative number.
        f"{INNER}  o = Mul(x, k)  z = Mul(d, zero)  t = Add(o, z)",
    ],
)
def test_2_a_number_of_exactly_zero_gets_the_sign_that_it_has_in_the_graph(
    sign, before, make_graph, proved, run_graph
) -> None:
    model = make_graph(
        f"g (float[1,8,4,4] x) => (y) {{ {before}  {sign}  c = Conv(s, w)  y = Mul(c, k) }}",
        w=signs(8, 8, 1, 1), v=signs(8, 8, 1, 1), k=np.full((8, 1, 1), -0.5),
        zero=0.0, low=-1.0, high=1.0, two=2.0,
    )  # fmt: skip
    written, _ = proved(model)
    x = np.random.default_rng(1).integers(-1, 2, (3, 8, 4, 4)).astype(np.float32)
    expected = np.concatenate([run_graph(model, row[None]) for row in x])
    np.testing.assert_array_equal(written.execute(x).outputs, expected)


@pytest.mark.parametrize("sign", [FROM_ZERO, ABOVE_ZERO])
@pytest.mark.parametrize(
    "between",
    [
        "t = Identity(e)",
        "t = LeakyRelu(e)",
        "t = MaxPool<kernel_shape=[2,2]>(e)",
        "t = Concat<axis=1>(e, e)",
    ],
)
def test_2_a_fused_multiply_add_takes_no_zero_for_another_number(
    sign, between, make_graph, proved
) -> None:
    factors = np.random.default_rng(2).standard_normal((8, 1, 1)).astype(np.float32)
    channels = 16 if "Concat" in between else 8
    model = make_graph(
        f"""g (float[1,8,4,4] x) => (y) {{ {INNER}  e = Mul(d, k)  {between}  {sign}
            c = Conv(s, w)  y = Mul(c, j) }}""",
        w=signs(8, channels, 1, 1), v=signs(8, 8, 3, 3), k=factors, j=np.full((8, 1, 1), 0.5),
        zero=0.0, low=-1.0, high=1.0,
    )  # fmt: skip
    written, _ = proved(model)
    file = read_dab(written.files["model"])
    operators = [layer.operator for layer in file.layers]
    after = operators.index(Operator.Affine, operators.index(Operator.BinConv2D))
    first = file.layers[after]
    constants = {tensor.name: tensor.data for tensor in file.tensors}
    # In one rounding: 36 of 72 products are mismatches where the sum is 0.
    fused = constants[first.text("a")].astype(np.float64) * 36 + constants[first.text("b")]
    assert (np.sign(fused) == (1 if sign == FROM_ZERO else -1)).all()


# 3. Affine, Relu, PRelu and Add overwrite what they read.


@pytest.mark.parametrize(
    ("text", "copies"),
    [
        # The shortcut of a block reads what the layer reads: no copy, the layer runs first.
        ("s = Sign(a)  c = Conv(s, w)  d = Mul(c, k)  y = Add(d, a)", 0),
        # Two readers that overwrite: one gets a copy.
        ("r = Relu(a)  t = Mul(a, k)  y = Add(r, t)", 1),
        ("r = Relu(a)  t = Mul(r, k)  u = Mul(a, k)  v = Add(t, u)  y = Add(v, a)", 2),
        ("y = Add(a, a)", 0),
        ("r = Relu(a)  y = Add(a, r)", 1),
    ],
)
def test_3_nothing_is_overwritten_that_is_still_to_be_read(
    text, copies, make_graph, proved
) -> None:
    model = make_graph(
        f"g (float[1,8,4,4] x) => (y) {{ a = Conv(x, f)  {text} }}",
        w=signs(8, 8, 1, 1), f=RNG.standard_normal((8, 8, 1, 1)), k=RNG.standard_normal((8, 1, 1)),
    )  # fmt: skip
    written, parity = proved(model)
    assert parity.max_abs_error < 1e-5
    layers = read_dab(written.files["model"]).layers
    assert sum(layer.operator is Operator.MaxPool for layer in layers) == copies
    told = [cost for cost in TARGET.examine(model).costs if cost.rule == "overwritten-map"]
    assert len(told) == copies


def test_3_padding_by_minus_one_makes_no_copy_of_a_shortcut(make_graph, proved) -> None:
    model = make_graph(
        f"""g (float[1,8,4,4] x) => (y) {{ t = Conv(x, f)  {FROM_ZERO}
            c = Conv<pads=[1,1,1,1]>(s, w)  d = Mul(c, k)  e = Add(d, t)
            h = Less(e, zero)  q = Where(h, low, high)
            y = Conv<pads=[1,1,1,1]>(q, w) }}""",
        w=signs(8, 8, 3, 3), f=RNG.standard_normal((8, 8, 1, 1)), k=RNG.standard_normal((8, 1, 1)),
        zero=0.0, low=-1.0, high=1.0,
    )  # fmt: skip
    minus_one = WriteOptions(padding="minus-one")
    written, _ = proved(model, minus_one)
    layers = read_dab(written.files["model"]).layers
    assert not [layer for layer in layers if layer.operator is Operator.MaxPool]


def test_3_the_input_belongs_to_the_caller(make_graph, proved) -> None:
    model = make_graph("g (float[1,4,4,4] x) => (y) { y = Relu(x) }")
    written, parity = proved(model)
    assert parity.max_abs_error == 0
    first = read_dab(written.files["model"]).layers[0]
    assert first.operator is Operator.MaxPool


@pytest.mark.parametrize("text", ["y = Flatten(x)", "r = Reshape(x, same)  y = Identity(r)"])
def test_3_a_network_without_a_layer_is_refused(text, make_graph, refused) -> None:
    model = make_graph(f"g (float[1,4,1,1] x) => (y) {{ {text} }}", same=np.array([1, 4, 1, 1]))
    assert refused(model) == [("unsupported-operator", "")]


# 4. Square maps and equal padding only.


def test_4_maps_that_are_not_square_are_refused(make_graph, refused) -> None:
    model = make_graph("g (float[1,4,8,12] x) => (y) { [pool] y = MaxPool<kernel_shape=[2,2]>(x) }")
    assert refused(model) == [("non-square-map", "pool")]


def test_4_kernels_that_are_not_square_are_refused(make_graph, refused) -> None:
    text = "g (float[1,4,8,8] x) => (y) { [wide] y = Conv<pads=[0,1,0,1]>(x, w) }"
    assert ("asymmetric-padding", "wide") in refused(make_graph(text, w=signs(4, 4, 1, 3)))
    text = "g (float[1,4,8,8] x) => (y) { [wide] y = Conv(x, w) }"
    assert refused(make_graph(text, w=signs(4, 4, 1, 3))) == [("non-square-map", "wide")]


@pytest.mark.parametrize("layer", ["Conv<pads=[0,0,1,1], strides=[2,2]>(x, w)",
                                   "MaxPool<kernel_shape=[3,3], pads=[0,0,1,1]>(x)"])  # fmt: skip
def test_4_padding_that_differs_is_refused(layer, make_graph, refused) -> None:
    model = make_graph(f"g (float[1,4,8,8] x) => (y) {{ [odd] y = {layer} }}", w=signs(4, 4, 3, 3))
    assert refused(model) == [("asymmetric-padding", "odd")]


# 5. Width times channels in fours wherever rows are stepped over.


def test_5_rows_of_no_whole_16_bytes_are_refused(one_layer, refused) -> None:
    assert refused(one_layer(4, 7, 6)) == [("channel-count", "layer")]
    # Its input may have any, unless its zeros have to be lifted.
    assert refused(one_layer(6, 7, 4, sign="Greater(x, zero)  s = Where(b, high, low)")) == []
    assert refused(one_layer(6, 7, 4)) == [("channel-count", "x_above_zero")]


def test_5_a_last_float_layer_may_give_any_number_of_scores(make_graph, proved) -> None:
    model = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            p = GlobalAveragePool(x)  f = Flatten(p)  y = Gemm<transB=1>(f, w, b) }""",
        w=RNG.standard_normal((7, 4)), b=RNG.standard_normal(7),
    )  # fmt: skip
    assert proved(model)[1].max_abs_error < 1e-5


# 6. 64 input channels.


def test_6_64_channels_need_an_even_width(one_layer, refused) -> None:
    assert refused(one_layer(64, 9, 64)) == [("channel-count", "layer")]
    assert refused(one_layer(64, 9, 64, kernel=1)) == [("channel-count", "layer")]
    assert refused(one_layer(64, 8, 64)) == []


def test_6_3x3_over_64_channels_needs_even_outputs(one_layer, refused) -> None:
    assert refused(one_layer(64, 16, 64, stride=2)) == [("channel-count", "layer")]  # 7×7 places
    assert refused(one_layer(64, 6, 5)) == [("channel-count", "layer")]
    assert refused(one_layer(64, 17, 64, stride=2)) == [("channel-count", "layer")]
    assert refused(one_layer(64, 18, 64, stride=2)) == []


def test_6_3x3_over_64_channels_stays_unpadded(one_layer, proved) -> None:
    written, parity = proved(one_layer(64, 8, 64))
    assert parity.max_abs_error == 0
    (packed,) = [item for item in read_dab(written.files["model"]).tensors if item.is_binary]
    assert packed.data.size == 64 * 9


# 7. 128 outputs at a time.


@pytest.mark.parametrize("channels", [128, 256, 512, 1024])
def test_7_3x3_over_full_words_needs_128_outputs(channels, one_layer, refused) -> None:
    assert refused(one_layer(channels, 4, 64)) == [("output-channels", "layer")]
    assert refused(one_layer(channels, 4, 128)) == []
    assert refused(one_layer(channels, 4, 64, kernel=1)) == []


@pytest.mark.parametrize("channels", [4, 100, 192])
def test_7_other_channels_need_not(channels, one_layer, proved) -> None:
    assert proved(one_layer(channels, 8, 12))[1].max_abs_error == 0


# 8. Buffers of a fixed size.


def test_8_a_map_beyond_the_block_of_the_matrix_product_is_refused(one_layer, refused) -> None:
    # 14 words per filter of 96 channels: at most 128,000 / 14 = 9,142 places.
    assert refused(one_layer(96, 98, 4)) == [("buffer-limit", "layer")]
    assert refused(one_layer(96, 97, 4)) == []


def test_8_a_window_beyond_its_buffer_is_refused(one_layer, refused) -> None:
    assert refused(one_layer(6700, 4, 4)) == [("buffer-limit", "layer")]


def test_8_64_channels_have_a_buffer_of_their_own(one_layer, refused) -> None:
    assert refused(one_layer(64, 330, 4)) == [("buffer-limit", "")]  # the input alone
    (refusal,) = TARGET.refusals(one_layer(3, 1000, 4))[:1]
    assert refusal.message == "an input of 3,000,000 numbers, and daBNN's benchmark feeds 999,999"


# 9. What the engine passes over: dilation, the bias of a binary layer, some pools.


def test_9_dilation_is_refused(one_layer, make_graph, refused) -> None:
    assert refused(one_layer(8, 8, 8, more=", dilations=[2,2]")) == [("dilation", "layer")]
    text = "g (float[1,4,8,8] x) => (y) { [odd] y = Conv<dilations=[2,2]>(x, w) }"
    assert refused(make_graph(text, w=signs(4, 4, 3, 3))) == [("dilation", "odd")]
    text = """g (float[1,4,8,8] x) => (y) {
        [odd] y = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x) }"""
    assert refused(make_graph(text)) == [("dilation", "odd")]


def test_9_the_bias_of_a_binary_layer_goes_into_its_affine(make_graph, proved) -> None:
    model = make_graph(
        "g (float[1,8,4,4] x) => (y) { s = PlusMinus(x)  y = Conv(s, w, b) }",
        w=signs(8, 8, 3, 3), b=RNG.standard_normal(8),
    )  # fmt: skip
    written, parity = proved(model)
    assert parity.max_abs_error < 1e-5
    layers = read_dab(written.files["model"]).layers
    assert all(not x.text("bias") for x in layers if x.operator is Operator.BinConv2D)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        ("AveragePool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]>(x)", "zero-padding"),
        ("AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)", "operator-form"),
        ("Concat<axis=1>(x, x, x)", "operator-form"),
        ("Concat<axis=2>(x, x)", "operator-form"),
    ],
)
def test_9_pools_and_joins_that_the_engine_has_not_are_refused(
    layer, rule, make_graph, refused
) -> None:
    model = make_graph(f"g (float[1,4,8,8] x) => (y) {{ [odd] y = {layer} }}")
    assert refused(model) == [(rule, "odd")]


def test_9_maps_of_other_channels_are_not_joined(make_graph, refused) -> None:
    model = make_graph(
        """g (float[1,4,8,8] x) => (y) { a = Conv(x, w)  [odd] y = Concat<axis=1>(x, a) }""",
        w=signs(8, 4, 1, 1),
    )
    assert refused(model) == [("channel-count", "odd")]


def test_9_two_maps_are_joined(make_graph, proved) -> None:
    model = make_graph("g (float[1,4,8,8] x) => (y) { n = Neg(x)  y = Concat<axis=1>(x, x) }")
    assert proved(model)[1].max_abs_error == 0


# 10. Channels in fours on ARM.


def test_10_max_pools_and_relus_on_arm_take_four_channels_at_once(make_graph, refused) -> None:
    pool = "g (float[1,6,8,8] x) => (y) { [odd] y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }"
    assert refused(make_graph(pool)) == [("channel-count", "odd")]
    relu = "g (float[1,3,5,5] x) => (y) { c = Conv(x, w)  [odd] y = Relu(c) }"
    assert refused(make_graph(relu, w=signs(3, 3, 1, 1))) == [("channel-count", "odd")]


# 11. Rounding near zero flips: the proof of parity counts flips within rounding as explained.


def test_11_flips_within_rounding_are_explained(make_graph, proved) -> None:
    model = make_graph(
        """g (float[1,16,16,16] x) => (y) {
            a = Conv<pads=[1,1,1,1]>(x, f)  s = Sign(a)  c = Conv(s, w)  d = Mul(c, k)
            e = Add(d, m)  t = Sign(e)  y = Conv(t, v) }""",
        f=RNG.standard_normal((16, 16, 3, 3)), w=signs(16, 16, 3, 3), v=signs(4, 16, 3, 3),
        k=RNG.standard_normal((16, 1, 1)), m=RNG.standard_normal((16, 1, 1)),
    )  # fmt: skip
    _, parity = proved(model)
    assert parity.unexplained_flips == 0
    assert parity.max_abs_error_same_signs == 0
