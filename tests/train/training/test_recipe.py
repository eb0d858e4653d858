import pytest

from bibench_train.training.recipe import Recipe, cosine_learning_rate


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
        {"scheduler": "step"},
    ],
)
def test_what_no_run_can_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_the_cosine_falls_from_the_rate_to_zero() -> None:
    recipe = Recipe(learning_rate=0.5)
    rates = [cosine_learning_rate(recipe, step, 100) for step in range(101)]
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0.0)
    assert rates == sorted(rates, reverse=True)
