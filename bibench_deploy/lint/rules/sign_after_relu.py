"""BIB401 sign-after-relu: a sign of numbers that are never negative.

Behind a ReLU half of a number's range is gone: torch.sign gives 0 or 1 there, often 0 for more
than a third of the numbers, and x >= 0 gives one value. Export holds 0 and 1 exactly, as half a
layer of signs plus a constant; what the ReLU threw away does not come back.

Bad:   conv(torch.sign(torch.relu(x)), sign(w))
Good:  conv(sign(x), sign(w))

Rests on: the range of what the sign reads, followed through the graph; XNOR-Net (ECCV 2016),
which puts the binary activation directly behind batch norm for this reason.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.graph.value_range import value_range
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for conv in network.convs:
        low, _ = value_range(conv.binarization.source)
        if low >= 0:
            yield Defect(
                conv.facts.name,
                Severity.WARNING,
                f"what it binarizes, {conv.facts.source}, is never negative",
                "binarize what comes before the ReLU",
            )


RULE = Rule("BIB401", "sign-after-relu", _check)
