"""BIB104 binary-weights-on-float: a layer of binary weights reads numbers of many values.

One magnitude per output channel says that the layer was meant to be binary. Its input is not: it
runs as a float convolution, 32 times as large as its bits. What export cannot prove it leaves in
float and never guesses.

Bad:   conv(torch.relu(x), sign(w) * alpha[:, None, None, None])
Good:  conv(sign(x), sign(w) * alpha[:, None, None, None])

Rests on: LCE's converter, which makes an LceBconv2d only where both sides are binary
(larq-compute-engine 0.16, by experiment).
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._float_work import in_float
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for miss in network.near_misses:
        if miss.rule == "binary-weights-on-float":
            yield Defect(
                miss.node,
                Severity.WARNING,
                f"{miss.reason}: {in_float(network, miss.node)}",
                "binarize its input by torch.where(x >= 0, 1.0, -1.0), or leave its weights float",
            )


RULE = Rule("BIB104", "binary-weights-on-float", _check)
