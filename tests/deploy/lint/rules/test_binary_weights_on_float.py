import numpy as np

from bibench_deploy.lint.finding import Severity

FLOAT = np.random.default_rng(1).standard_normal((8, 4, 3, 3))


def test_binary_weights_that_read_floats_are_a_warning(findings_of) -> None:
    (finding,) = findings_of("h = Relu(x)  [conv] y = Conv(h, w)", "binary-weights-on-float")
    assert (finding.code, finding.severity, finding.layer) == ("BIB104", Severity.WARNING, "conv")
    assert finding.message.startswith("its weights hold one magnitude per channel, but its input")
    assert ": it runs in float: 1,152 bytes of weights instead of 288" in finding.message


def test_float_weights_and_binary_layers_are_clean(findings_of) -> None:
    nodes = "h = Relu(x)  [conv] y = Conv(h, f)"
    assert findings_of(nodes, "binary-weights-on-float", f=FLOAT) == ()
    assert findings_of("s = Sign(x)  y = Conv(s, w)", "binary-weights-on-float") == ()
