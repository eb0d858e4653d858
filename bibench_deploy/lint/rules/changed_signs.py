"""BIB105 changed-signs: signs are changed on their way to a layer of binary weights.

Signs that are pooled, concatenated, or padded with another number on their way are no longer
the packed bits that a binary convolution reads. The same done before the sign computes the
same, or nearly, and costs nothing.

Bad:   conv(torch.cat([sign(a), sign(b)], 1), sign(w))
Good:  conv(sign(torch.cat([a, b], 1)), sign(w))

Rests on: LCE's converter, which matches LceQuantize directly in front of the convolution
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
        if miss.rule == "changed-signs":
            yield Defect(
                miss.node,
                Severity.WARNING,
                f"{miss.reason}: {in_float(network, miss.node)}",
                "do the same before the sign",
            )


RULE = Rule("BIB105", "changed-signs", _check)
