from bibench_deploy.lint.finding import Severity


def test_a_sign_that_no_binary_layer_reads_is_a_warning(findings_of) -> None:
    nodes = "[sign] s = Sign(x)  y = GlobalAveragePool(s)"
    (finding,) = findings_of(nodes, "sign-without-layer")
    assert (finding.code, finding.severity, finding.layer) == ("BIB107", Severity.WARNING, "sign")
    assert "no layer of binary weights reads it" in finding.message


def test_a_sign_in_front_of_a_binary_layer_is_clean(findings_of) -> None:
    nodes = "[sign] s = Sign(x)  c = Conv(s, w)  y = GlobalAveragePool(c)"
    assert findings_of(nodes, "sign-without-layer") == ()
