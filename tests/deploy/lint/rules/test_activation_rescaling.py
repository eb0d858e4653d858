import numpy as np

from bibench_deploy.lint.finding import Severity

SIGN = "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)  [conv] c = Conv(s, w)"
CONSTANTS = {
    "zero": 0.0, "one": 1.0, "minus": -1.0,
    "axes": np.array([1, 2, 3]),
    "alpha": np.linspace(0.5, 2, 8).reshape(8, 1, 1),
}  # fmt: skip


def test_a_factor_computed_from_the_layers_input_is_an_error(findings_of) -> None:
    nodes = f"a = Abs(x)  k = ReduceMean(a, axes)  {SIGN}  y = Mul(c, k)"
    (finding,) = findings_of(nodes, "activation-rescaling", **CONSTANTS)
    assert (finding.code, finding.rule) == ("BIB202", "activation-rescaling")
    assert (finding.severity, finding.layer) == (Severity.ERROR, "conv")
    assert finding.message == "re-scaled at run time by k, which is computed from its input"
    assert "constant factors per channel" in finding.hint
    assert finding.hint.endswith(
        "export with --allow-unfused-scales, which runs it as float operators at extra cost"
    )


def test_a_constant_factor_per_channel_is_clean(findings_of) -> None:
    assert findings_of(f"{SIGN}  y = Mul(c, alpha)", "activation-rescaling", **CONSTANTS) == ()


def test_the_same_mean_added_instead_of_multiplied_is_clean(findings_of) -> None:
    nodes = f"a = Abs(x)  k = ReduceMean(a, axes)  {SIGN}  y = Add(c, k)"
    assert findings_of(nodes, "activation-rescaling", **CONSTANTS) == ()
