import numpy as np
import pytest

from bibench_deploy.lint.finding import Severity

LAYER = """g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)  [conv] c = Conv(s, w)
    {}"""
CONSTANTS = {
    "zero": 0.0, "one": 1.0, "minus": -1.0, "half": 0.5,
    "alpha": np.linspace(0.5, 2, 8).reshape(8, 1, 1),
    "gamma": np.random.default_rng(0).uniform(0.5, 2, (8, 6, 6)),
    "rows": np.linspace(0.5, 2, 6).reshape(6, 1),
}  # fmt: skip


@pytest.mark.parametrize("factor", ["gamma", "rows"])
def test_a_factor_for_each_position_is_an_error(factor, findings_of) -> None:
    (finding,) = findings_of(
        LAYER.format(f"y = Mul(c, {factor})"), "scale-granularity", **CONSTANTS
    )
    assert (finding.code, finding.rule) == ("BIB201", "scale-granularity")
    assert (finding.severity, finding.layer) == (Severity.ERROR, "conv")
    assert finding.message == "a spatial scale on the output; lce holds channel, none, tensor"
    assert finding.hint == (
        "use one constant factor per output channel, or export with --allow-unfused-scales, "
        "which runs it as float operators at extra cost"
    )


@pytest.mark.parametrize("factor", ["alpha", "half", "one"])
def test_a_factor_for_each_channel_or_for_all_is_clean(factor, findings_of) -> None:
    assert (
        findings_of(LAYER.format(f"y = Mul(c, {factor})"), "scale-granularity", **CONSTANTS) == ()
    )


def test_a_factor_computed_elsewhere_is_an_error(make_graph) -> None:
    from bibench_deploy.lint.runner import lint_graph
    from bibench_deploy.targets.lce import TARGET

    model = make_graph(
        "g (float[1,4,8,8] x, float[1,8,1,1] z) => (y) {"
        + LAYER.format("k = Sigmoid(z)  y = Mul(c, k)")
        + "}",
        w=np.ones((8, 4, 3, 3)),
        **CONSTANTS,
    )
    inputs, scale = lint_graph(model, TARGET).findings
    assert (scale.code, scale.severity) == ("BIB201", Severity.ERROR)
    assert "a dynamic scale" in scale.message
    assert (inputs.rule, inputs.layer) == ("several-inputs", "")
