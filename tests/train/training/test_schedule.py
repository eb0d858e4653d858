import math

import pytest
import torch

from bibench_train.training.recipe import Recipe
from bibench_train.training.schedule import is_same_stage, learning_rate


def rates(recipe: Recipe, steps_per_epoch: int = 1, stages: int = 1) -> list[float]:
    return [
        learning_rate(recipe, epoch, step, steps_per_epoch, stages)
        for epoch in range(recipe.epochs)
        for step in range(steps_per_epoch)
    ]


@pytest.mark.parametrize("scheduler", ["cosine", "step"])
def test_without_warm_up_it_is_torchs_own_schedule(scheduler: str) -> None:
    recipe = Recipe(epochs=20, learning_rate=0.5, scheduler=scheduler, decay_epochs=(4, 11))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    torchs: torch.optim.lr_scheduler.LRScheduler
    if scheduler == "cosine":
        torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    else:
        torchs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 11], gamma=0.1)
    for ours in rates(recipe):
        assert ours == pytest.approx(torchs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        torchs.step()


def test_the_cosine_moves_at_every_step_and_ends_just_above_zero() -> None:
    found = rates(Recipe(epochs=10, learning_rate=1.0), steps_per_epoch=10)
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 100
    assert found[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_a_constant_rate_stays() -> None:
    assert set(rates(Recipe(epochs=5, learning_rate=0.3, scheduler="constant"))) == {0.3}


def test_steps_fall_at_one_half_and_three_quarters_where_no_epochs_are_named() -> None:
    found = rates(Recipe(epochs=8, learning_rate=1.0, scheduler="step", decay_factor=0.5))
    assert found == [1.0] * 4 + [0.5] * 2 + [0.25] * 2


def test_warm_up_grows_to_the_rate_in_equal_steps() -> None:
    recipe = Recipe(epochs=4, learning_rate=1.0, warmup_epochs=2, scheduler="constant")
    assert rates(recipe, steps_per_epoch=2) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_the_cosine_begins_at_its_top_after_warm_up_and_still_ends_at_zero() -> None:
    recipe = Recipe(epochs=10, learning_rate=1.0, warmup_epochs=2)
    found = rates(recipe, steps_per_epoch=50)
    assert found[100] == 1.0
    assert found[-1] < 1e-4


def test_each_stage_has_a_schedule_of_its_own() -> None:
    recipe = Recipe(epochs=6, learning_rate=1.0, warmup_epochs=1)
    found = rates(recipe, steps_per_epoch=4, stages=2)
    assert found[:12] == found[12:]
    assert found[:12] == rates(Recipe(epochs=3, learning_rate=1.0, warmup_epochs=1), 4)


def test_warm_up_never_takes_the_whole_of_a_stage() -> None:
    recipe = Recipe(epochs=4, learning_rate=1.0, warmup_epochs=3, scheduler="constant")
    assert rates(recipe, stages=2) == [1.0, 1.0, 1.0, 1.0]
    assert rates(recipe, steps_per_epoch=2, stages=2)[:4] == [0.5, 1.0, 1.0, 1.0]


def test_stages_split_the_epochs_evenly() -> None:
    assert [is_same_stage(e, 0, 4, 2) for e in range(4)] == [True, True, False, False]
