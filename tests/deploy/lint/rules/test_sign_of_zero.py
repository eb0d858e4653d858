from bibench_deploy.lint.finding import Severity

CONSTANTS = {"zero": 0.0, "one": 1.0, "minus": -1.0, "quarter": 0.25}
CONV = "  [conv] y = Conv(s, w)"
GOOD = "g = GreaterOrEqual(h, zero)  s = Where(g, one, minus)"
ABOVE = "g = Greater(h, zero)  s = Where(g, one, minus)"


def test_zero_that_becomes_a_third_value_is_an_error_where_zeros_are_common(findings_of) -> None:
    (finding,) = findings_of(f"h = Neg(x)  s = Sign(h){CONV}", "sign-of-zero", **CONSTANTS)
    assert (finding.code, finding.rule, finding.layer) == ("BIB101", "sign-of-zero", "conv")
    assert finding.severity is Severity.ERROR
    assert finding.message == "0 becomes 0 here, a third value, and many numbers of h are 0"
    assert finding.hint == "binarize by torch.where(x >= 0, 1.0, -1.0)"


def test_zero_that_becomes_a_third_value_is_a_warning_where_zeros_are_rare(findings_of) -> None:
    nodes = f"h = Add(x, quarter)  s = Sign(h){CONV}"
    (finding,) = findings_of(nodes, "sign-of-zero", **CONSTANTS)
    assert (finding.code, finding.rule, finding.layer) == ("BIB101", "sign-of-zero", "conv")
    assert finding.severity is Severity.WARNING
    assert finding.message == "0 becomes 0 here, and +1 on lce"
    assert finding.hint == "binarize by torch.where(x >= 0, 1.0, -1.0)"


def test_zero_that_becomes_plus_one_is_clean(findings_of) -> None:
    assert findings_of(f"h = Neg(x)  {GOOD}{CONV}", "sign-of-zero", **CONSTANTS) == ()


def test_zero_that_becomes_minus_one_is_exact_and_costs_an_addition(findings_of) -> None:
    (finding,) = findings_of(f"h = Neg(x)  {ABOVE}{CONV}", "sign-of-zero", **CONSTANTS)
    assert (finding.rule, finding.severity) == ("sign-of-zero", Severity.INFO)
    assert "an addition over 256 numbers" in finding.message


def test_after_a_relu_the_sign_is_two_values_and_clean(findings_of) -> None:
    assert findings_of(f"h = Relu(x)  s = Sign(h){CONV}", "sign-of-zero", **CONSTANTS) == ()


def test_after_a_relu_the_projects_own_sign_is_clean(findings_of) -> None:
    assert findings_of(f"h = Relu(x)  {GOOD}{CONV}", "sign-of-zero", **CONSTANTS) == ()


def test_a_threshold_beside_zero_is_clean(findings_of) -> None:
    nodes = "g = Greater(x, quarter)  s = Where(g, one, minus)" + CONV
    assert findings_of(nodes, "sign-of-zero", **CONSTANTS) == ()
