"""Which targets hold a convolution that an algorithm has trained, from what both say of themselves.

The lint rules decide on a finished graph; this is their answer before there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bibench_deploy import targets
from bibench_deploy.graph.facts import Granularity

if TYPE_CHECKING:
    from bibench_train.algorithms._algorithm import Algorithm


def granularity_of(algorithm: Algorithm) -> Granularity:
    """What the scale of a trained convolution is at inference.

    Example:
        >>> from bibench_train import algorithms
        >>> [granularity_of(algorithms.load(name)).value for name in ("bireal", "xnor", "xnorpp")]
        ['channel', 'dynamic', 'spatial']
    """
    if algorithm.rescales_by_activation:
        return Granularity.DYNAMIC
    return Granularity(algorithm.scale_granularity)


def targets_for(algorithm: Algorithm) -> list[str]:
    """The targets that hold a convolution of this algorithm by default, by name.

    Example:
        >>> from bibench_train import algorithms
        >>> targets_for(algorithms.load("xnor"))
        []
    """
    granularity = granularity_of(algorithm)
    found = [targets.load(name) for name in targets.names()]
    return [
        target.name
        for target in found
        if granularity in target.held_scales
        and (target.holds_mean_shift or not algorithm.shifts_input)
    ]
