"""What runs in float is told in numbers, and those of one bit are what the engine's file holds."""

import numpy as np
import pytest

from bibench_deploy import targets
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.dabnn.packing import pack_filters
from bibench_deploy.targets.lce.residency import pack_filter
from bibench_deploy.targets.native.operators import pack_signs
from tests.deploy.lint.rules.conftest import SIGNS

RNG = np.random.default_rng(3)
ARRAYS = {
    "w": SIGNS, "f": RNG.standard_normal(SIGNS.shape), "t": SIGNS.transpose(1, 0, 2, 3).copy(),
    "scaled": SIGNS * np.linspace(0.5, 2, 8).reshape(8, 1, 1, 1),
    "first": SIGNS[:, :1] * np.linspace(0.5, 2, 8).reshape(8, 1, 1, 1), "channel": np.array([1]),
    "each": np.resize(SIGNS, (4, 8, 16)) * np.linspace(0.5, 2, 8).reshape(1, 8, 1),
    "rows": np.linspace(0.5, 2, 6).reshape(6, 1), "axes": np.array([1, 2, 3]),
}  # fmt: skip
BITS = {"dabnn": 128, "lce": 288, "native": 72}  # of 8 filters of 3×3 over 4 channels


def message_of(make_graph, nodes: str, rule: str, target: str, options=None) -> str:
    graph = make_graph(f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}", **ARRAYS)
    found = lint_graph(graph, targets.load(target), options or WriteOptions()).findings
    (message,) = [item.message for item in found if item.rule == rule]
    return message


@pytest.mark.parametrize("target", BITS)
def test_a_layer_in_float_is_told_in_bytes_and_multiplications(target, make_graph) -> None:
    message = message_of(
        make_graph, "h = Relu(x)  y = Conv(h, scaled)", "binary-weights-on-float", target
    )
    assert message.endswith(
        f": it runs in float: 1,152 bytes of weights instead of {BITS[target]}, "
        "and 10,368 multiplications of floats"
    )


def test_nothing_is_one_bit_in_an_onnx_file(make_graph) -> None:
    message = message_of(
        make_graph, "h = Relu(x)  y = Conv(h, scaled)", "binary-weights-on-float", "onnx"
    )
    assert message.endswith(
        "in float: 1,152 bytes of weights, and 10,368 multiplications of floats"
    )


# Rule: (nodes from x to y, multiplications).
CASES = {
    "float-weights-on-signs": ("s = PlusMinus(x)  y = Conv(s, f)", "10,368"),
    "changed-signs": (
        "s = PlusMinus(x)  n = Neg(s)  c = Concat<axis=3>(s, n)  y = Conv(c, w)", "24,192"),
    "transposed-convolution": ("s = PlusMinus(x)  y = ConvTranspose(s, t)", "18,432"),
}  # fmt: skip


@pytest.mark.parametrize("rule", CASES)
def test_every_rule_of_a_layer_in_float_tells_how_much(rule, make_graph) -> None:
    nodes, count = CASES[rule]
    assert message_of(make_graph, nodes, rule, "native").endswith(
        "it runs in float: 1,152 bytes of weights instead of 72, "
        f"and {count} multiplications of floats"
    )


def test_a_matrix_for_each_map_is_used_for_its_map_alone(make_graph) -> None:
    message = message_of(make_graph, "y = MatMul(x, each)", "binary-weights-on-float", "lce")
    assert message.endswith("2,048 bytes of weights, and 4,096 multiplications of floats")


def test_words_of_one_channel_save_nothing_which_is_not_told(make_graph) -> None:
    nodes = "h = ReduceMean(x, channel)  y = Conv(h, first)"
    told = [
        message_of(make_graph, nodes, "binary-weights-on-float", name) for name in ("lce", "native")
    ]
    assert "288 bytes of weights, and" in told[0]
    assert "288 bytes of weights instead of 72, and" in told[1]


def test_other_float_work_is_told_in_numbers(make_graph) -> None:
    sign = "s = PlusMinus(x)  y = GlobalAveragePool(s)"
    text = message_of(make_graph, sign, "sign-without-layer", "lce")
    assert text.endswith("it runs in float over 256 numbers")
    options = WriteOptions(allow_unfused_scales=True)
    scale = "s = PlusMinus(x)  c = Conv(s, w)  y = Mul(c, {})"
    text = message_of(make_graph, scale.format("rows"), "scale-granularity", "lce", options)
    assert text == "a spatial scale on the output: float operators over 288 numbers"
    nodes = "a = Abs(x)  k = ReduceMean(a, axes)  " + scale.format("k")
    text = message_of(make_graph, nodes, "activation-rescaling", "lce", options)
    assert text.endswith("computed from its input: float operators over 288 numbers")


@pytest.mark.parametrize("shape", [(8, 64, 3, 3), (8, 64, 1, 1), (16, 100, 3, 3), (8, 70, 5, 5)])
def test_bytes_in_one_bit_are_those_that_the_engines_pack(shape) -> None:
    weight = np.where(RNG.standard_normal(shape) >= 0, 1.0, -1.0).astype(np.float32)
    last = np.moveaxis(weight, 1, -1)
    strides = (1, 1)
    packed = {
        "dabnn": pack_filters(last, strides).nbytes,
        "lce": len(pack_filter(weight, is_rotated=False)),
        "native": pack_signs(last).nbytes,
    }
    for name, count in packed.items():
        assert targets.load(name).packed_bytes(shape, strides) == count
    assert targets.load("onnx").packed_bytes(shape, strides) is None
