import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.errors import TrainingStoppedError
from bibench_train.layers import BinaryConv2d
from bibench_train.training import read_run, train
from bibench_train.training.checkpoint import build_model
from bibench_train.training.loop import penalty, start_epoch
from bibench_train.training.seeding import seed_epoch

# torch.compile itself makes such an object to trace an estimator with.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated.*:DeprecationWarning")


def broken_backend(*_: object) -> Callable[..., object]:
    raise RuntimeError("no compiler here\nand more lines")


def test_compiled_steps_train_the_same_network(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced as for inductor, and then run by torch itself: the same operations, the same bits.
    compiler = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiler)
    torch.compiler.reset()
    plain = train(algorithm="reactnet", dataset=tiny, out=tmp_path / "plain")
    compiled = train(
        algorithm="reactnet", dataset=tiny, out=tmp_path / "compiled", is_compiled=True
    )
    assert compiled.info.checkpoint_sha256 == plain.info.checkpoint_sha256
    assert read_run(compiled.run_dir).is_compiled


@pytest.mark.slow
# Of torch's own modules, which inductor loads and which use what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("algorithm", ["fda"])
def test_inductor_compiles_a_training_run(
    tiny: ImagesInMemory, tmp_path: Path, algorithm: str
) -> None:
    torch.compiler.reset()
    recipe = replace(tiny.binary_recipe, epochs=1)
    run = train(
        algorithm=algorithm, dataset=tiny, out=tmp_path / "a", recipe=recipe, is_compiled=True
    )
    assert run.info.epochs_done == 1


def test_a_compiler_that_fails_is_one_line_with_the_way_out(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken_backend))
    torch.compiler.reset()
    with pytest.raises(TrainingStoppedError) as caught:
        train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", is_compiled=True)
    assert "no compiler here" in str(caught.value)
    assert "train without --compile; no epoch was finished" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_a_model_without_binary_layers_has_neither_schedule_nor_penalty() -> None:
    model = nn.Linear(2, 2)
    start_epoch(model, 0, 1)
    assert penalty(model) == 0.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_autocast_narrows_convolutions_and_never_the_loss(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen: set[torch.dtype] = set()
    cross_entropy = torch.nn.functional.cross_entropy

    def spy(logits: Tensor, *arguments: object, **options: object) -> Tensor:
        seen.add(logits.dtype)
        return cross_entropy(logits, *arguments, **options)

    convolved: set[torch.dtype] = set()

    def operator(layer: BinaryConv2d, x: Tensor, weight: Tensor) -> Tensor:
        output = binary_operator(layer, x, weight)
        if layer.training:
            convolved.add(output.dtype)
        return output

    binary_operator = BinaryConv2d.operator
    monkeypatch.setattr(BinaryConv2d, "operator", operator)
    monkeypatch.setattr("bibench_train.training.loop.F.cross_entropy", spy)
    recipe = replace(tiny.binary_recipe, epochs=1, precision=precision)
    train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", recipe=recipe)
    assert seen == {torch.float32}
    assert convolved == {torch.bfloat16 if precision == "bf16" else torch.float32}


def test_labels_are_smoothed_as_the_recipe_says(tiny: ImagesInMemory, tmp_path: Path) -> None:
    # One step without a step's effect: the loss is that of the network as it was built.
    recipe = replace(
        tiny.fp32_recipe, epochs=1, batch_size=24, learning_rate=1e-30, label_smoothing=0.25
    )
    run = train(algorithm="fp32", dataset=tiny, out=tmp_path / "a", recipe=recipe)
    torch.manual_seed(recipe.seed)
    model = build_model(run.info).train()
    images, labels = next(tiny.train_batches(24, seed_epoch(recipe.seed, 0)))
    log_odds = model(images).log_softmax(1)
    right = log_odds[torch.arange(24), labels]
    expected = -(0.75 * right + 0.25 * log_odds.mean(1)).mean().item()
    found = json.loads((run.run_dir / "metrics.jsonl").read_text())["loss"]
    assert found == pytest.approx(expected, rel=1e-5)
