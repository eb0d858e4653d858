import random

import numpy as np
import torch

from bibench_train.training.seeding import seed_epoch


def draw(seed: int, epoch: int) -> tuple[float, ...]:
    generator = seed_epoch(seed, epoch)
    return (
        torch.rand(1, generator=generator).item(),
        torch.rand(1).item(),
        random.random(),  # noqa: S311 - this is what is tested
        float(np.random.rand()),
    )


def test_one_epoch_of_one_seed_draws_the_same_everywhere() -> None:
    assert draw(0, 3) == draw(0, 3)


def test_another_epoch_or_seed_draws_something_else() -> None:
    draws = [draw(0, 3), draw(0, 4), draw(1, 3), draw(3, 0)]
    assert len({d[0] for d in draws}) == len({d[1] for d in draws}) == 4


def test_data_and_layers_draw_from_different_streams() -> None:
    data, layers, *_ = draw(0, 0)
    assert data != layers
