"""Which operators a model's time goes to: measured in a pass of its own, and no latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bibench_deploy.profiling.plausible import is_figure

INFERENCES = 20
_LONGEST_TEXT = 200


@dataclass(frozen=True)
class OperatorTime:
    """All operators of one type in one inference.

    Attributes:
        type: as the model's file names it, such as Conv.
        count: how many of them run.
        ms: what they take together, under a profiler: more than without one.
    """

    type: str
    count: int
    ms: float

    def __post_init__(self) -> None:
        """Refuse what no profiler can have measured.

        Raises:
            ValueError: a name that is none, or a number that is none or below 0.
        """
        numbers = (self.count, self.ms)
        is_text = isinstance(self.type, str) and self.type.isprintable()
        if not is_text or not 0 < len(self.type) <= _LONGEST_TEXT:
            raise ValueError("the type of an operator is no text")
        for number in numbers:
            if not is_figure(number):
                raise ValueError("a figure is no number from 0 on")


def operators_from(rows: Any) -> tuple[OperatorTime, ...]:
    """Read a list of objects with `type`, `count` and `ms`.

    Raises:
        ValueError: it is none; also KeyError and TypeError.
    """
    return tuple(OperatorTime(row["type"], row["count"], row["ms"]) for row in rows)


def shares(operators: Sequence[OperatorTime]) -> list[float]:
    """The part of each in the time of all, from 0 to 1."""
    total = sum(operator.ms for operator in operators)
    return [operator.ms / total if total else 0.0 for operator in operators]
