"""What every target promises; a new folder under targets/ is tested here by itself."""

from dataclasses import fields

import numpy as np
import pytest

from bibench_deploy import targets
from bibench_deploy.errors import OptionError, UnknownNameError
from bibench_deploy.graph.facts import Granularity, binary_convs
from bibench_deploy.targets._target import WriteOptions

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
LAYER = "g (float[1,4,8,8] x) => (y) {{ s = PlusMinus(x)  {}  y = Relu(c) }}"


@pytest.fixture(params=targets.names())
def target(request: pytest.FixtureRequest):
    return targets.load(request.param)


@pytest.fixture(params=[name for name in targets.names() if name not in ("native", "onnx")])
def engine(request: pytest.FixtureRequest):
    """A target with operators of its own: ONNX Runtime runs every graph that we read."""
    return targets.load(request.param)


def test_the_folders_are_the_names() -> None:
    assert "lce" in targets.names()
    assert not [name for name in targets.names() if name.startswith("_")]


def test_a_target_is_called_like_its_folder(target) -> None:
    assert targets.load(target.name) is target
    assert target.title
    assert target.held_scales <= set(Granularity)


def test_an_unknown_target_lists_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as raised:
        targets.load("lcee")
    assert 'unknown target "lcee" (did you mean "lce"?)' in str(raised.value)
    assert raised.value.valid == tuple(targets.names())


def test_its_options_are_fields_that_a_user_may_set(target) -> None:
    assert target.options <= {field.name for field in fields(WriteOptions)}


CHOICES = {"allow_unfused_scales": True, "input": "rotated", "fully_connected": "int8",
           "float_storage": "float16", "stem": "int8", "padding": "exact",
           "allow_mean_shift": True}  # fmt: skip


def test_every_option_has_a_target() -> None:
    held = set().union(*(targets.load(name).options for name in targets.names()))
    assert held == {field.name for field in fields(WriteOptions)} == set(CHOICES)


@pytest.mark.parametrize("option", CHOICES)
def test_an_option_that_a_target_does_not_have_is_refused_with_those_that_do(
    option: str, target
) -> None:
    chosen = WriteOptions(**{option: CHOICES[option]})
    if option in target.options:
        targets.check_options(target, chosen)
        return
    with pytest.raises(OptionError) as raised:
        targets.check_options(target, chosen)
    assert str(raised.value).startswith(f"target {target.name} has no --{option.replace('_', '-')}")
    assert raised.value.holders
    assert target.name not in raised.value.holders


def test_a_plain_binary_layer_is_held(target, make_graph) -> None:
    assert target.refusals(make_graph(LAYER.format("c = Conv(s, w)"), w=SIGNS)) == []


def test_what_a_target_cannot_hold_is_refused_with_the_node_and_a_next_step(
    engine, make_graph
) -> None:
    model = make_graph(
        "g (float[1,4,8,8] x) => (y) { [odd_one] h = Hardmax(x)  y = Relu(h) }",
    )
    (refusal,) = engine.refusals(model)
    assert (refusal.rule, refusal.node) == ("unsupported-operator", "odd_one")
    assert "Hardmax" in refusal.message
    assert refusal.hint
    assert str(refusal) == f"odd_one: {refusal.message}; {refusal.hint}"


def test_every_reason_is_given_at_once(engine, make_graph) -> None:
    model = make_graph(
        "g (float[1,4,8,8] x) => (y) { [one] h = Hardmax(x)  [two] i = Asinh(h)  y = Relu(i) }"
    )
    assert [refusal.node for refusal in engine.refusals(model)] == ["one", "two"]


def test_lowering_works_on_a_copy(target, make_graph) -> None:
    model = make_graph(LAYER.format("c = Conv(s, w)"), w=SIGNS * 0.5)
    before = [node.op_type for node in model.graph]
    lowered = target.lower(model)
    assert [node.op_type for node in model.graph] == before
    assert len(binary_convs(lowered)) == 1


def test_lowering_keeps_what_is_computed(target, make_graph, run_graph) -> None:
    model = make_graph(
        LAYER.format("d = Conv<pads=[1,1,1,1]>(s, w)  c = Mul(d, k)"),
        w=SIGNS * 0.5,
        k=np.linspace(-1, 2, 8).reshape(8, 1, 1),
    )
    x = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    expected = run_graph(model, x)
    np.testing.assert_allclose(run_graph(target.lower(model), x), expected, rtol=1e-5, atol=1e-5)


def test_scales_that_do_not_fold_are_refused_for_every_target_unless_it_may_allow_them(
    target, make_graph
) -> None:
    model = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            s = PlusMinus(x)  [spatial] a = Conv(s, w)  b = Mul(a, rows)
            k = Abs(b)  m = ReduceMean(k, axes)
            t = PlusMinus(b)  [dynamic] c = Conv(t, v)  y = Mul(c, m) }""",
        w=SIGNS,
        v=np.concatenate([SIGNS, SIGNS], axis=1),
        rows=np.linspace(0.5, 2, 6).reshape(6, 1),
        axes=np.array([1, 2, 3]),
    )
    refused = [(refusal.rule, refusal.node) for refusal in target.refusals(model)]
    assert refused[:2] == [("scale-granularity", "spatial"), ("activation-rescaling", "dynamic")]
    allowed = target.refusals(model, WriteOptions(allow_unfused_scales=True))
    is_held = "allow_unfused_scales" in target.options
    rules = {item.rule for item in allowed}
    assert {"scale-granularity", "activation-rescaling"}.isdisjoint(rules) == is_held


@pytest.mark.parametrize("factor", ["Abs(x)", "ReduceMean<keepdims=1>(z, rows)", "Identity(alpha)"])
def test_signs_times_more_than_one_number_per_image_are_refused_even_when_scales_are_allowed(
    factor: str, target, make_graph
) -> None:
    model = make_graph(
        f"""g (float[1,4,8,8] x) => (y) {{
            s = PlusMinus(x)  z = Abs(x)  k = {factor}  m = Mul(s, k)  [layer] c = Conv(m, w)
            y = Relu(c) }}""",
        w=SIGNS, rows=np.array([2]), alpha=np.linspace(0.5, 2, 4).reshape(1, 4, 1, 1),
    )  # fmt: skip
    refused = target.refusals(model, WriteOptions(allow_unfused_scales=True))
    assert ("scale-before-layer", "layer") in [(item.rule, item.node) for item in refused]


def test_one_number_per_image_before_a_layer_may_have_no_dimensions(target, make_graph) -> None:
    model = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            s = PlusMinus(x)  a = Abs(x)  k = ReduceMean<keepdims=0>(a)  m = Mul(s, k)
            c = Conv(m, w)  y = Relu(c) }""",
        w=SIGNS,
    )
    is_held = not target.refusals(model, WriteOptions(allow_unfused_scales=True))
    assert is_held == ("allow_unfused_scales" in target.options)
