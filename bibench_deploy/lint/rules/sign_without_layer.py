"""BIB107 sign-without-layer: a sign that no layer of binary weights reads.

The sign costs information and saves nothing: bits are worth their loss only in front of a binary
layer.

Bad:   x.sign().mean((2, 3))
Good:  conv(sign(x), sign(w))

Rests on: LCE's converter, which leaves a float operator for a sign that no LceBconv2d reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.graph.facts import shape_of
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._float_work import over_numbers
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for miss in network.near_misses:
        if miss.rule == "sign-without-layer":
            shape = shape_of(network.nodes[miss.node].outputs[0])
            yield Defect(
                miss.node,
                Severity.WARNING,
                f"{miss.reason}: it runs in float{over_numbers(shape)}",
                "let a layer of binary weights read it, or leave the sign out",
            )


RULE = Rule("BIB107", "sign-without-layer", _check)
