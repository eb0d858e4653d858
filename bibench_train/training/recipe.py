"""The recipe: every number that decides how a run is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

OPTIMIZERS = ("adam",)
SCHEDULERS = ("cosine",)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the same recipe, seed, machine and thread count give the same weights.

    The defaults are BiBench's for CIFAR-10 (its ImageNet recipe: 100 epochs, batch 256). A data set
    brings its own where these do not suit it.

    Raises:
        ValueError: A value that no run can have.
    """

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    scheduler: str = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size are at least 1, not {self.epochs} and {self.batch_size}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is a positive number, not {self.learning_rate}")
        if self.seed < 0:
            raise ValueError(f"seed is 0 or more, not {self.seed}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f'optimizer is one of {", ".join(OPTIMIZERS)}, not "{self.optimizer}"')
        if self.scheduler not in SCHEDULERS:
            raise ValueError(f'scheduler is one of {", ".join(SCHEDULERS)}, not "{self.scheduler}"')


def cosine_learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of one optimizer step: half a cosine from `learning_rate` to 0.

    A function of the step alone, so a resumed run has nothing to restore.

    Args:
        recipe: Gives the rate at step 0.
        step: Counted from 0 over the whole run.
        steps: How many steps the run has.

    Example:
        >>> [round(cosine_learning_rate(Recipe(learning_rate=2.0), s, 4), 3) for s in range(5)]
        [2.0, 1.707, 1.0, 0.293, 0.0]
    """
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
