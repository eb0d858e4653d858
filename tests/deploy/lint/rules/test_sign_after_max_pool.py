import numpy as np

from bibench_deploy.lint.finding import Severity

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "minus": -1.0,
    "g": np.ones(4), "b": np.zeros(4), "m": np.zeros(4), "v": np.ones(4),
}  # fmt: skip
SIGN = "q = GreaterOrEqual(h, zero)  s = Where(q, one, minus)  [conv] y = Conv(s, w)"
POOL = "[pool] p = MaxPool<kernel_shape=[2,2]>(x)"


def test_a_sign_of_the_largest_of_four_is_told(findings_of) -> None:
    nodes = SIGN.replace("(h,", "(p,")
    (finding,) = findings_of(f"{POOL}  {nodes}", "sign-after-max-pool", **CONSTANTS)
    assert (finding.code, finding.severity, finding.layer) == ("BIB402", Severity.INFO, "conv")
    assert finding.message == "binarizes the largest of 4 numbers (pool), which is rarely negative"


def test_a_batch_norm_between_them_makes_it_clean(findings_of) -> None:
    nodes = f"{POOL}  h = BatchNormalization(p, g, b, m, v)  {SIGN}"
    assert findings_of(nodes, "sign-after-max-pool", **CONSTANTS) == ()


def test_a_pooling_of_one_number_prefers_none(findings_of) -> None:
    nodes = "h = MaxPool<kernel_shape=[1,1], strides=[2,2]>(x)  s = Sign(h)  y = Conv(s, w)"
    assert findings_of(nodes, "sign-after-max-pool") == ()
