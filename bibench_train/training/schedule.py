"""Learning-rate schedules: functions of the step alone, so a resumed run has nothing to restore."""

from __future__ import annotations

import math

from bibench_train.algorithms._algorithm import stage_of
from bibench_train.training.recipe import Recipe


def learning_rate(
    recipe: Recipe, epoch: int, step: int, steps_per_epoch: int, stages: int = 1
) -> float:
    """The learning rate of one optimizer step.

    - cosine: half a cosine from `recipe.learning_rate` to 0.
    - step: multiplied by `decay_factor` after each of `decay_epochs`.
    - constant.

    Warm-up comes first and takes its epochs from the schedule, which begins where warm-up ends.

    Args:
        recipe: Gives the schedule and its highest rate.
        epoch: Counted from 0 over the whole run.
        step: Counted from 0 within the epoch.
        steps_per_epoch: Optimizer steps an epoch.
        stages: Of the algorithm; the schedule runs once in each.

    Example:
        >>> recipe = Recipe(epochs=1, learning_rate=2.0)
        >>> [round(learning_rate(recipe, 0, step, 4), 3) for step in range(4)]
        [2.0, 1.707, 1.0, 0.293]
        >>> recipe = Recipe(epochs=4, learning_rate=1.0, scheduler="step", warmup_epochs=1)
        >>> [round(learning_rate(recipe, epoch, 0, 1), 3) for epoch in range(4)]
        [1.0, 1.0, 0.1, 0.01]
    """
    stage = [e for e in range(recipe.epochs) if is_same_stage(e, epoch, recipe.epochs, stages)]
    epoch -= stage[0]
    done = epoch * steps_per_epoch + step
    warmup = min(recipe.warmup_epochs, len(stage) - 1) * steps_per_epoch
    if done < warmup:
        return recipe.learning_rate * (done + 1) / warmup
    if recipe.scheduler == "cosine":
        share = (done - warmup) / (len(stage) * steps_per_epoch - warmup)
        return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))
    if recipe.scheduler == "step":
        falls = recipe.decay_epochs or (-(-len(stage) // 2), -(-3 * len(stage) // 4))
        return float(recipe.learning_rate * recipe.decay_factor ** sum(epoch >= e for e in falls))
    return recipe.learning_rate


def is_same_stage(epoch: int, other: int, epochs: int, stages: int) -> bool:
    """Whether two epochs, counted from 0, belong to one stage of an algorithm."""
    return stage_of(epoch, epochs, stages) == stage_of(other, epochs, stages)
