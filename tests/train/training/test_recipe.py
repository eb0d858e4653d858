import pytest

from bibench_train.training.recipe import Recipe


def test_the_defaults_are_the_benchmarks_for_cifar10() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (200, 128, 1e-3)
    assert (recipe.optimizer, recipe.scheduler) == ("adam", "cosine")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"seed": -1},
        {"optimizer": "adamm"},
        {"scheduler": "linear"},
        {"precision": "fp16"},
        {"momentum": 1.0},
        {"label_smoothing": -0.1},
        {"weight_decay": float("inf")},
        {"decay_factor": -1.0},
        {"decay_epochs": (0, 3)},
        {"warmup_epochs": 200},
    ],
)
def test_what_no_run_can_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)
