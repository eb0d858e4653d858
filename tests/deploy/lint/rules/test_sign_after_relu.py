from bibench_deploy.lint.finding import Severity

CONSTANTS = {"zero": 0.0, "one": 1.0, "minus": -1.0}
CONV = "s = Sign(h)  [conv] y = Conv(s, w)"


def test_a_sign_of_what_is_never_negative_is_a_warning(findings_of) -> None:
    (finding,) = findings_of(f"h = Relu(x)  {CONV}", "sign-after-relu", **CONSTANTS)
    assert (finding.code, finding.severity, finding.layer) == ("BIB401", Severity.WARNING, "conv")
    assert finding.message == "what it binarizes, h, is never negative"


def test_a_sign_of_numbers_of_both_signs_is_clean(findings_of) -> None:
    assert findings_of(f"h = Neg(x)  {CONV}", "sign-after-relu", **CONSTANTS) == ()


def test_a_sign_that_is_one_value_is_no_binarization_at_all(findings_of) -> None:
    nodes = (
        "h = Relu(x)  g = GreaterOrEqual(h, zero)  s = Where(g, one, minus)  [conv] y = Conv(s, w)"
    )
    (finding,) = findings_of(nodes, "binary-weights-on-float", **CONSTANTS)
    assert "is one number everywhere" in finding.message
