"""What a graph shows of weights that are not ±1 yet: the run itself is known to lint by name."""

import numpy as np

from tests.deploy.lint.rules.conftest import SIGNS

SOFT = np.tanh(3 * np.random.default_rng(1).standard_normal(SIGNS.shape))


def test_soft_weights_in_a_graph_are_floats_that_read_signs(findings_of) -> None:
    (finding,) = findings_of("s = Sign(x)  y = Conv(s, w)", w=SOFT)
    assert finding.code == "BIB103"


def test_a_sign_with_noise_in_a_graph_is_one_that_no_binary_layer_reads(findings_of) -> None:
    nodes = "[sign] s = Sign(x)  n = Sin(x)  a = Mul(n, small)  m = Add(s, a)  y = Conv(m, w)"
    found = findings_of(nodes, w=SOFT, small=0.005)
    assert [(finding.code, finding.layer) for finding in found] == [("BIB107", "sign")]
