"""BIB101 sign-of-zero: exactly 0 becomes 0, a third value that one bit cannot hold.

That is what ONNX Sign (torch.sign) does; Larq Compute Engine gives +1 for 0 and for −0.
It is an error where the graph shows that zeros are common: in the network's own input, in what
a ReLU cut off, in the even sums of a binary layer, if nothing moves them before the sign.
Elsewhere, as after batch norm, an exact 0 is rare, and the proof of parity counts them; a sum
that is 0 where its whole window is dark is found by neither. Behind a ReLU nothing is
negative, and Sign there is two values, 0 and 1: that is held as it is, and so is a comparison
x > 0.

Bad:   torch.sign(x)
Good:  torch.where(x >= 0, 1.0, -1.0)

Rests on: LCE's LceQuantize, found by experiment (tests/deploy/targets/lce).
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for facts in network.layers:
        if facts.at_threshold == 0 and network.target.sign_of_zero:
            yield Defect(
                facts.name,
                Severity.WARNING,
                f"{facts.threshold:g} becomes 0 here, and {network.target.sign_of_zero:+d} on "
                f"{network.target.name}",
                "binarize by torch.where(x >= 0, 1.0, -1.0)",
            )


RULE = Rule("BIB101", "sign-of-zero", _check)
