"""The benchmark's rule on scales, the same for every target.

One constant FP32 factor per output channel, or a coarser one, folds into the batch norm behind
a binary convolution. A finer one, or one computed at run time, is refused unless the user
allows it (BiBench, ICML 2023, Table 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bibench_deploy.graph.facts import BinaryConv, shape_of
from bibench_deploy.targets._target import Refusal, Target, WriteOptions

_AT_EXTRA_COST = (
    ", or export with --allow-unfused-scales, which runs it as float operators at extra cost"
)


def refuse_unfused_scales(
    target: Target, convs: Sequence[BinaryConv], options: WriteOptions
) -> Iterator[Refusal]:
    """The binary layers whose scale does not fold, in order; none where `options` allows them."""
    has_option = "allow_unfused_scales" in target.options
    at_extra_cost = _AT_EXTRA_COST if has_option else ""
    for conv in convs:
        facts = conv.facts
        if conv.factor is not None and not conv.is_factor_movable:
            yield Refusal(
                "scale-before-layer",
                facts.name,
                f"its signs are multiplied by {conv.factor.name}, which is more than one number "
                f"per image: {list(shape_of(conv.factor))}",
                "multiply the layer's output instead",
            )
        elif has_option and options.allow_unfused_scales:
            continue
        elif facts.is_rescaled_by_activation:
            yield Refusal(
                "activation-rescaling",
                facts.name,
                f"re-scaled at run time by {facts.scale_source}, which is computed from its input",
                "train with constant factors per channel (bireal, reactnet) or without (bnn)"
                + at_extra_cost,
            )
        elif facts.scale not in target.held_scales:
            held = ", ".join(sorted(scale.value for scale in target.held_scales))
            yield Refusal(
                "scale-granularity",
                facts.name,
                f"a {facts.scale.value} scale on the output; {target.name} holds {held}",
                f"use one constant factor per output channel{at_extra_cost}",
            )
