"""BIB307 transposed-convolution: a transposed convolution that reads signs.

No engine has a binary transposed convolution: the signs are unpacked and the layer runs in float.

Bad:   F.conv_transpose2d(sign(x), sign(w), stride=2)
Good:  conv(sign(F.interpolate(x, scale_factor=2)), sign(w), padding=1)

Rests on: LCE's operators (LceBconv2d, LceBMaxPool2d, LceQuantize, LceDequantize) and daBNN's.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._float_work import in_float
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for miss in network.near_misses:
        if miss.rule == "transposed-convolution":
            yield Defect(
                miss.node,
                Severity.WARNING,
                f"{miss.reason}: {in_float(network, miss.node)}",
                "upsample, and use a binary convolution",
            )


RULE = Rule("BIB307", "transposed-convolution", _check)
