"""What a change costs that is not exact by design, such as weights stored in fewer bits.

Nothing here fails: it is measured, on the same inputs, each network with its own signs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bibench_deploy.targets._target import Execution
from bibench_deploy.verify.parity import top1_agreement


@dataclass(frozen=True)
class OutputCost:
    """How far the outputs of a changed network are from the exact one's.

    Attributes:
        inputs: how many inputs were compared.
        max_relative_error: largest difference of the outputs, relative to the largest output
            of the exact network.
        top1_agreement: share of inputs whose largest output is at the same place.
        flip_rate: share of signs that differ, flips that follow from flips in earlier layers
            included; None where there are no signs.
    """

    inputs: int
    max_relative_error: float
    top1_agreement: float
    flip_rate: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as the manifest keeps them."""
        return asdict(self)


def measure_output_cost(exact: Execution, changed: Execution) -> OutputCost:
    """Compare what two forms of one network computed for the same inputs."""
    largest = float(np.abs(exact.outputs).max()) or 1.0
    error = float(np.abs(exact.outputs - changed.outputs).max()) / largest
    top1 = top1_agreement(exact.outputs, changed.outputs)
    flips = total = 0
    for name, signs in exact.signs.items():
        is_read = ~np.isnan(signs)
        flips += int((signs != changed.signs[name])[is_read].sum())
        total += int(is_read.sum())
    rate = flips / total if total else None
    return OutputCost(len(exact.outputs), error, top1, rate)
