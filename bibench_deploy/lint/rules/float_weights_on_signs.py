"""BIB103 float-weights-on-signs: a layer of weights that are not binary reads signs.

The layer was meant to be binary and runs as a float convolution: 32 times the storage, and
slower than the same layer on float inputs, since the signs are unpacked for it first. One
magnitude per output channel is what a binary layer folds; two in one channel are none.

Bad:   conv(sign(x), w)                              # w: any floats
Good:  conv(sign(x), sign(w) * alpha[:, None, None, None])

Rests on: LCE's converter, which leaves LceDequantize and CONV_2D for such a layer (tests of the
target lce); daBNN's BinConv2D, whose weights are bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._float_work import in_float
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for miss in network.near_misses:
        if miss.rule == "float-weights-on-signs":
            yield Defect(
                miss.node,
                Severity.WARNING,
                f"{miss.reason}: {in_float(network, miss.node)}",
                "binarize its weights, or let it read the numbers before the sign",
            )


RULE = Rule("BIB103", "float-weights-on-signs", _check)
