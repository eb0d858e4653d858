"""BIB405 dominant-float-layer: a float layer that holds or computes more than all others together.

The first and the last layer of a binarized network stay in float. Where one of them takes most of
the file or of the work, smaller binary layers gain nothing more.

Bad:   a head of 25,088 × 4,096 float weights behind binary layers
Good:  global average pooling before the head

Rests on: equations 7 and 8 of BiBench (ICML 2023): a binary weight is 1/32 of a float one, a
binary multiplication 1/64.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    if not network.convs:
        return
    for what, costs in (("storage", network.weight_bytes), ("work", network.work)):
        total = sum(costs.values())
        for node, cost in costs.items():
            if node not in network.binary_nodes and 2 * cost > total:
                yield Defect(
                    node.name or "",
                    Severity.INFO,
                    f"this float layer is {cost / total:.0%} of the {_said(what, cost)}",
                    "make it smaller: fewer channels, a pooling before it, or a binary layer",
                )


def _said(what: str, cost: float) -> str:
    if what == "storage":
        return f"weights' storage, {cost / 1e6:,.2f} MB"
    return f"work, {cost / 1e6:,.1f} million multiplications (64 binary ones count as one)"


RULE = Rule("BIB405", "dominant-float-layer", _check)
