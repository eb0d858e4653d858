"""BIB202 activation-rescaling: the output is multiplied by a factor computed from the input.

XNOR-Net's K, the mean magnitude of the activations under each window, is known only at run
time: no engine folds it into a binary convolution, and computing it costs float passes
over the map. The benchmark counts such networks as not deployable.

Bad:   conv(sign(x), sign(w)) * x.abs().mean((1, 2, 3), keepdim=True)
Good:  conv(sign(x), sign(w)) * alpha[:, None, None]  # alpha: [C], constant

Rests on: Table 4 of BiBench (ICML 2023), activation re-scaling.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._float_work import over_numbers
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for facts in network.layers:
        if facts.is_rescaled_by_activation:
            yield Defect(
                facts.name,
                Severity.WARNING,
                f"re-scaled at run time by {facts.scale_source}, which is computed from its input: "
                f"float operators{over_numbers(facts.output_shape)}",
                "train with constant factors per channel (bireal, reactnet) or without (bnn)",
            )


RULE = Rule("BIB202", "activation-rescaling", _check)
