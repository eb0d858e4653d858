"""BIB402 sign-after-max-pool: a sign of numbers that a max pooling gave.

The largest of four numbers is rarely negative: were each sign a coin, 15 of 16 would become +1. A
batch norm between the two centres them again.

Bad:   conv(sign(F.max_pool2d(x, 2)), sign(w))
Good:  conv(sign(batch_norm(F.max_pool2d(x, 2))), sign(w))

Rests on: XNOR-Net (ECCV 2016), which pools behind the convolution and not before the sign.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.graph.facts import window_of
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for conv in network.convs:
        node = conv.binarization.source.producer()
        if node is not None and node.op_type == "MaxPool":
            rows, columns = window_of(node).kernel
            if rows * columns == 1:
                continue  # it drops numbers, and prefers none
            yield Defect(
                conv.facts.name,
                Severity.INFO,
                f"binarizes the largest of {rows * columns} numbers ({node.name}), "
                "which is rarely negative",
                "put a batch norm between the pooling and the sign",
            )


RULE = Rule("BIB402", "sign-after-max-pool", _check)
