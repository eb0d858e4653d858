"""BIB201 scale-granularity: a scaling factor that is finer than one number per channel.

Engines fold one FP32 factor per output channel into their binary convolution, together
with batch norm. A factor for each position (XNOR-Net++'s spatial Γ), or one computed at
run time, stays behind it as float work on the whole map. A factor per tensor is a channel
factor with equal entries and passes.

Bad:   conv(sign(x), sign(w)) * gamma            # gamma: [C, H, W]
Good:  conv(sign(x), sign(w)) * alpha[:, None, None]  # alpha: [C]

Rests on: Table 4 of BiBench (ICML 2023), granularity; LCE's interpreter refuses a factor
that is not of rank 1 (bconv2d.cc).
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._float_work import over_numbers
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for facts in network.layers:
        if facts.scale not in network.target.held_scales and not facts.is_rescaled_by_activation:
            yield Defect(
                facts.name,
                Severity.WARNING,
                f"a {facts.scale.value} scale on the output: float operators"
                f"{over_numbers(facts.output_shape)}",
                "use one constant factor per output channel",
            )


RULE = Rule("BIB201", "scale-granularity", _check)
