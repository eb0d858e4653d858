from bibench_deploy.lint.finding import Severity

CONSTANTS = {"zero": 0.0, "one": 1.0, "minus": -1.0}
NODES = """p = GlobalMaxPool(x)  g = GreaterOrEqual({0}, zero)  s = Where(g, one, minus)
    [conv] y = Conv<pads=[1,1,1,1]>(s, w)"""


def test_a_kernel_that_is_larger_than_its_map_is_told(findings_of) -> None:
    (finding,) = findings_of(NODES.format("p"), "map-smaller-than-kernel", **CONSTANTS)
    assert (finding.code, finding.severity, finding.layer) == ("BIB303", Severity.INFO, "conv")
    assert finding.message.startswith("a 3×3 kernel on a 1×1 map: of 9 places")


def test_a_map_as_large_as_the_kernel_is_clean(findings_of) -> None:
    assert findings_of(NODES.format("x"), "map-smaller-than-kernel", **CONSTANTS) == ()
