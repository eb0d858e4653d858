import numpy as np
import pytest

from bibench_deploy.graph.facts import binary_convs

AMOUNTS = {"amounts": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "zero": 0.0, "one": 1.0}


def padded(pad: str, after: str = "y = Sign(p)") -> str:
    return f"g (float[1,2,3,4] x) => (y) {{ p = {pad}  [sign] {after} }}"


@pytest.mark.parametrize("pad", ["Pad(x, amounts)", "Pad(x, amounts, zero)"])
def test_zeros_are_padded_around_signs(pad, make_proto, make_graph, run_graph) -> None:
    model = make_graph(padded(pad), **AMOUNTS)
    assert [(node.op_type, node.name) for node in model.graph] == [
        ("Sign", "sign"), ("Pad", "sign_padded"),
    ]  # fmt: skip
    assert model.graph.outputs[0].name == "y"
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)
    expected = run_graph(make_proto(padded(pad), **AMOUNTS), x)
    np.testing.assert_array_equal(run_graph(model, x), expected)


@pytest.mark.parametrize("pad", ["Pad(x, amounts, one)", 'Pad<mode="reflect">(x, amounts)'])
def test_other_padding_stays_before_the_sign(pad, make_graph) -> None:
    amounts = {**AMOUNTS, "amounts": np.array([0, 0, 1, 0, 0, 0, 2, 1])}
    model = make_graph(padded(pad), **amounts)
    assert [node.op_type for node in model.graph] == ["Pad", "Sign"]


def test_padded_numbers_that_something_else_reads_stay(make_proto, make_graph, run_graph) -> None:
    text = padded("Pad(x, amounts)", "s = Sign(p)  y = Add(s, p)")
    model = make_graph(text, **AMOUNTS)
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)
    expected = run_graph(make_proto(text, **AMOUNTS), x)
    np.testing.assert_array_equal(run_graph(model, x), expected)


def test_it_is_the_zero_padding_of_the_layer(make_graph) -> None:
    weight = np.random.default_rng(0).choice([-1.0, 1.0], (4, 2, 3, 3))
    model = make_graph(
        "g (float[1,2,5,5] x) => (y) { p = Pad(x, amounts)  s = Sign(p)  y = Conv(s, w) }",
        w=weight, **{**AMOUNTS, "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )  # fmt: skip
    (conv,) = binary_convs(model)
    assert conv.binarization.source.name == "x"
    assert (conv.facts.pads, conv.facts.pad_value) == ((1, 1, 1, 1), 0)
