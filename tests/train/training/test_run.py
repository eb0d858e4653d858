import errno
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bibench_train import algorithms, datasets
from bibench_train.algorithms._algorithm import Algorithm, Binarizer, LayerShape
from bibench_train.datasets._dataset import WHOLE, Batch, ImagesInMemory, Shard
from bibench_train.errors import (
    CheckpointError,
    DatasetError,
    TrainingStoppedError,
    UnknownNameError,
)
from bibench_train.ops.estimators import sign_clipped_ste
from bibench_train.training import Accuracy, Progress, load_run, read_run, train
from bibench_train.training.metrics import EpochMetrics
from bibench_train.training.schedule import learning_rate

TIMES = ("seconds", "seconds_per_step", "data_wait_share")
EPOCHS = 3  # of the recipes of the tiny data set


class InterruptedAfter(Progress):
    """Ctrl-C in the middle of the epoch that follows `epochs` whole ones."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.is_stopped = False

    def step(self, epoch: int, loss: float) -> None:
        if epoch == self.epochs:
            raise KeyboardInterrupt

    def stop(self) -> None:
        self.is_stopped = True


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def untimed(run_dir: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines(run_dir)]


def test_every_epoch_has_a_line_of_metrics(tiny: ImagesInMemory, tmp_path: Path) -> None:
    run = train(algorithm="bnn", dataset=tiny, out=tmp_path / "run")
    found = lines(run.run_dir)
    assert [line["epoch"] for line in found] == list(range(1, EPOCHS + 1))
    assert set(found[0]) == {
        "epoch",
        "loss",
        "train_accuracy",
        "test_accuracy",
        "learning_rate",
        "seconds",
        "seconds_per_step",
        "data_wait_share",
    }
    rates = [learning_rate(run.info.recipe, e, 0, 3) for e in range(EPOCHS)]
    assert [line["learning_rate"] for line in found] == rates
    assert run.accuracy == found[-1]["test_accuracy"]


@pytest.mark.parametrize("algorithm", ["fp32", *algorithms.names()])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    tiny: ImagesInMemory, tmp_path: Path, algorithm: str
) -> None:
    whole = train(algorithm=algorithm, dataset=tiny, out=tmp_path / "whole")
    stopped = tmp_path / "stopped"
    for epochs in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(
                algorithm=algorithm,
                dataset=tiny,
                out=stopped,
                progress=InterruptedAfter(epochs),
                is_resumed=epochs > 1,
            )
        assert read_run(stopped).epochs_done == epochs
        torch.rand(epochs)  # other work in between must not matter
    resumed = train(algorithm=algorithm, dataset=tiny, out=stopped, is_resumed=True)
    name = "checkpoint.safetensors"
    assert (stopped / name).read_bytes() == (whole.run_dir / name).read_bytes()
    name = "resume.safetensors"  # its metadata holds times, so the tensors alone
    ours, theirs = (load_file(folder / name) for folder in (stopped, whole.run_dir))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert untimed(stopped) == untimed(whole.run_dir)
    assert resumed.info.accuracy == whole.info.accuracy


def test_another_seed_gives_another_network(tiny: ImagesInMemory, tmp_path: Path) -> None:
    first = train(algorithm="bnn", dataset=tiny, out=tmp_path / "0")
    again = train(algorithm="bnn", dataset=tiny, out=tmp_path / "again")
    recipe = replace(tiny.binary_recipe, seed=1)
    other = train(algorithm="bnn", dataset=tiny, out=tmp_path / "1", recipe=recipe)
    assert first.info.checkpoint_sha256 == again.info.checkpoint_sha256
    assert first.info.checkpoint_sha256 != other.info.checkpoint_sha256


def test_the_callers_random_numbers_are_left_alone(tiny: ImagesInMemory, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)[1]
    torch.manual_seed(0)
    torch.rand(1)
    train(algorithm="bnn", dataset=tiny, out=tmp_path / "run")
    assert torch.rand(1) == expected


def test_an_interrupt_in_the_first_epoch_leaves_no_folder(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    progress = InterruptedAfter(0)
    with pytest.raises(KeyboardInterrupt):
        train(dataset=tiny, out=tmp_path / "runs" / "a", progress=progress)
    assert not (tmp_path / "runs" / "a").exists()
    assert progress.is_stopped


def test_a_folder_that_holds_something_is_refused(tiny: ImagesInMemory, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"not empty; continue .* --resume, or .* --out"):
        train(dataset=tiny, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_taken(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(algorithm="bnn", dataset=tiny, out=Path()).run_dir == Path()
    assert read_run(tmp_path).name == tmp_path.name


def test_nothing_to_resume_is_said(tiny: ImagesInMemory, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing can be resumed; train without --resume"):
        train(dataset=tiny, out=tmp_path / "none", is_resumed=True)
    assert not (tmp_path / "none").exists()


def test_resuming_another_algorithm_or_recipe_names_both(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    train(algorithm="bnn", dataset=tiny, out=tmp_path / "a")
    with pytest.raises(
        CheckpointError, match="holds resnet20 bnn on tiny, and resnet20 bireal on tiny was asked"
    ):
        train(algorithm="bireal", dataset=tiny, out=tmp_path / "a", is_resumed=True)
    recipe = replace(tiny.binary_recipe, epochs=9)
    with pytest.raises(CheckpointError, match=f"was begun with epochs {EPOCHS};"):
        train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", recipe=recipe, is_resumed=True)


def test_resuming_a_finished_run_changes_nothing(tiny: ImagesInMemory, tmp_path: Path) -> None:
    first = train(algorithm="bnn", dataset=tiny, out=tmp_path / "a")
    again = train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", is_resumed=True)
    assert again.info == first.info
    assert len(lines(tmp_path / "a")) == EPOCHS


def test_metrics_of_an_epoch_whose_checkpoint_was_lost_are_dropped(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        train(algorithm="bnn", dataset=tiny, out=out, progress=InterruptedAfter(1))
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "loss": 0.5}\n{"epo')
    train(algorithm="bnn", dataset=tiny, out=out, is_resumed=True)
    assert [line["epoch"] for line in lines(out)] == list(range(1, EPOCHS + 1))


class _NotANumberInEpoch2(ImagesInMemory):
    def train_batches(
        self, batch_size: int, generator: torch.Generator, shard: Shard = WHOLE
    ) -> Iterator[Batch]:
        epochs.append(len(epochs))
        for images, labels in super().train_batches(batch_size, generator, shard):
            yield (images * torch.nan if len(epochs) == 2 else images), labels


epochs: list[int] = []


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    epochs.clear()
    poisoned = _NotANumberInEpoch2(**vars(tiny))
    with pytest.raises(TrainingStoppedError) as caught:
        train(algorithm="fp32", dataset=poisoned, out=tmp_path / "a")
    assert "the loss became nan in epoch 2, step 1 of 3; try a learning rate below" in str(
        caught.value
    )
    assert f"epoch 1 is kept in {tmp_path / 'a'}" in str(caught.value)
    model, info = load_run(tmp_path / "a")
    assert info.epochs_done == 1
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_rate_far_too_high_stops_in_the_first_epoch_and_keeps_nothing(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    recipe = replace(tiny.fp32_recipe, learning_rate=1e38)
    with pytest.raises(TrainingStoppedError, match="nothing was kept"):
        train(algorithm="fp32", dataset=tiny, out=tmp_path / "a", recipe=recipe)
    assert not (tmp_path / "a").exists()


# An epoch writes four files; once the first is there, the run can be resumed, whichever of the
# others the disk has no room for.
@pytest.mark.parametrize("files", [1, 2, 3, 4, 5, 6, 7])
def test_a_full_disk_leaves_a_run_that_can_be_resumed(
    tiny: ImagesInMemory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill_disk_after: Callable[[pytest.MonkeyPatch, int], None],
    files: int,
) -> None:
    whole = train(algorithm="bnn", dataset=tiny, out=tmp_path / "whole")
    out = tmp_path / "a"
    with monkeypatch.context() as patch:
        fill_disk_after(patch, files)
        with pytest.raises(OSError, match="No space left") as caught:
            train(algorithm="bnn", dataset=tiny, out=out)
    assert caught.value.errno == errno.ENOSPC
    assert not list(out.glob(".*"))
    resumed = train(algorithm="bnn", dataset=tiny, out=out, is_resumed=True)
    assert resumed.info.checkpoint_sha256 == whole.info.checkpoint_sha256
    assert untimed(out) == untimed(whole.run_dir)


def test_a_disk_that_is_full_at_once_leaves_no_folder(
    tiny: ImagesInMemory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill_disk_after: Callable[[pytest.MonkeyPatch, int], None],
) -> None:
    fill_disk_after(monkeypatch, 0)
    with pytest.raises(OSError, match="No space left"):
        train(algorithm="bnn", dataset=tiny, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_unknown_names_are_answered_before_anything_is_written(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match='architecture "resnet"'):
        train(architecture="resnet", dataset=tiny, out=tmp_path / "a")
    with pytest.raises(UnknownNameError, match='algorithm "bn"'):
        train(algorithm="bn", dataset=tiny, out=tmp_path / "a")
    with pytest.raises(UnknownNameError, match='dataset "digit"'):
        train(dataset="digit", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_options_of_the_architecture_are_kept_in_the_run(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    run = train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", options={"downsample": "binary"})
    assert read_run(run.run_dir).architecture_options == {"form": "cifar", "downsample": "binary"}
    load_run(run.run_dir)


class Counting(Binarizer):
    """Remembers each call of the epoch hook, and adds a loss term."""

    def __init__(self, algorithm: Algorithm, shape: LayerShape) -> None:
        super().__init__(algorithm, shape)
        self.register_buffer("calls", torch.zeros(1))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        assert (epoch, epochs) == (int(self.calls), EPOCHS)
        self.calls += 1

    def penalty(self, weight: torch.Tensor) -> torch.Tensor:
        return 100 + 0 * weight.sum()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("bibench_train.algorithms.counting")
    module.ALGORITHM = Algorithm(
        title="Counting",
        source="https://example.org",
        binarize_input=sign_clipped_ste,
        binarize_weight=sign_clipped_ste,
        binarizer=Counting,
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(algorithms, "names", lambda: ("counting",))
    return "counting"


def test_the_loop_calls_the_epoch_hook_and_adds_the_penalty(
    counting: str, tiny: ImagesInMemory, tmp_path: Path
) -> None:
    run = train(algorithm=counting, dataset=tiny, out=tmp_path / "a")
    state = load_run(run.run_dir)[0].state_dict()
    assert [v.item() for k, v in state.items() if k.endswith("calls")] == [EPOCHS] * 18
    assert lines(run.run_dir)[0]["loss"] > 1800


def test_schedules_go_on_where_they_were_after_a_resume(
    counting: str, tiny: ImagesInMemory, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        train(algorithm=counting, dataset=tiny, out=out, progress=InterruptedAfter(1))
    # The hook itself asserts the epoch that it is told.
    train(algorithm=counting, dataset=tiny, out=out, is_resumed=True)


def test_progress_is_told_of_every_step_and_epoch(tiny: ImagesInMemory, tmp_path: Path) -> None:
    told: list[object] = []

    class Listening(Progress):
        def start(self, name: str, first_epoch: int, epochs: int, steps_per_epoch: int) -> None:
            told.append((name, first_epoch, epochs, steps_per_epoch))

        def step(self, epoch: int, loss: float) -> None:
            told.append(epoch)

        def finish_epoch(self, metrics: EpochMetrics) -> None:
            told.append(f"done {metrics.epoch}")

        def stop(self) -> None:
            told.append("stop")

    train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", progress=Listening())
    expected = [("a", 0, 3, 3), 0, 0, 0, "done 1", 1, 1, 1, "done 2", 2, 2, 2, "done 3", "stop"]
    assert told == expected


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", algorithms.names())
def test_a_short_run_from_the_shipped_float_network_reads_digits(
    tmp_path: Path, algorithm: str
) -> None:
    # What whole runs reach is in docs/digits-accuracy.md.
    digits = datasets.load("digits")
    run = train(
        algorithm=algorithm,
        dataset=digits,
        out=tmp_path / "run",
        init=Path(__file__).parents[3] / "models" / "digits-resnet20-fp32",
        recipe=replace(digits.binary_recipe, epochs=5),
    )
    assert run.accuracy >= 90


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "weight_decay": 1e-4},
        {"optimizer": "adamw", "weight_decay": 1e-2, "warmup_epochs": 1},
        {"precision": "bf16", "label_smoothing": 0.1},
        {"scheduler": "step", "decay_epochs": (1, 2)},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_recipe_resumes_to_the_bit(
    tiny: ImagesInMemory, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = replace(tiny.binary_recipe, **changes)
    whole = train(algorithm="bireal", dataset=tiny, out=tmp_path / "whole", recipe=recipe)
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(
            algorithm="bireal",
            dataset=tiny,
            out=out,
            recipe=recipe,
            progress=InterruptedAfter(1),
        )
    resumed = train(algorithm="bireal", dataset=tiny, out=out, is_resumed=True)
    assert resumed.info.checkpoint_sha256 == whole.info.checkpoint_sha256
    assert resumed.info.recipe == recipe
    assert untimed(out) == untimed(whole.run_dir)
    plain = train(algorithm="bireal", dataset=tiny, out=tmp_path / "plain")
    assert plain.info.checkpoint_sha256 != whole.info.checkpoint_sha256


class _Accuracies:
    """Stands in for evaluation: what the test split says after each epoch."""

    def __init__(self, *correct: int) -> None:
        self.left = list(correct)

    def __call__(self, *_: object, **__: object) -> Accuracy:
        return Accuracy(self.left.pop(0), 12)


def test_the_best_epoch_is_kept_beside_the_last_and_a_resumed_run_remembers_it(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bibench_train.training.loop.evaluate", _Accuracies(7, 9, 9, 0))
    out = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        train(algorithm="bnn", dataset=tiny, out=out, progress=InterruptedAfter(2))
    after_two = (out / "checkpoint.safetensors").read_bytes()
    train(algorithm="bnn", dataset=tiny, out=out, is_resumed=True)
    best = read_run(out).best
    assert best is not None
    assert (best.epoch, best.accuracy.correct) == (2, 9)  # the first of equals
    assert (out / "best.safetensors").read_bytes() == after_two
    assert (out / "checkpoint.safetensors").read_bytes() != after_two
    _, info = load_run(out, is_best=True)
    assert (info.epochs_done, info.accuracy) == (2, best.accuracy)


def test_an_epoch_that_cannot_be_deployed_is_never_the_best(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bibench_train.training.loop.evaluate", _Accuracies(12, 11, 3))
    run = train(algorithm="biper", dataset=tiny, out=tmp_path / "a")
    assert run.info.best is not None
    # The first two epochs are stage 1, whose weights are real numbers.
    assert run.info.best.epoch == 3


def test_the_optimizer_begins_anew_in_the_second_stage(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    run = train(algorithm="biper", dataset=tiny, out=tmp_path / "a")
    found = load_file(run.run_dir / "resume.safetensors")
    steps = {v.item() for k, v in found.items() if k.endswith(".step")}
    assert steps == {3.0}  # one epoch of three, not three of them
    rates = [line["learning_rate"] for line in lines(run.run_dir)]
    assert rates[0] == rates[2] > rates[1]


def test_what_a_kill_after_the_resume_file_left_old_is_written_again(
    tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bibench_train.training.loop.evaluate", _Accuracies(7, 8, 9))
    out = tmp_path / "a"
    train(algorithm="bnn", dataset=tiny, out=out)
    expected = {path.name: path.read_bytes() for path in out.iterdir()}
    for name in ("best.safetensors", "checkpoint.safetensors", "run.json"):
        (out / name).write_bytes(b"of the epoch before")
    train(algorithm="bnn", dataset=tiny, out=out, is_resumed=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected


def test_the_run_says_what_it_cost(tiny: ImagesInMemory, tmp_path: Path) -> None:
    info = train(algorithm="bnn", dataset=tiny, out=tmp_path / "a").info
    assert info.seconds_per_step is not None
    assert info.seconds_per_step > 0
    assert info.data_wait_share is not None
    assert 0 <= info.data_wait_share < 1
    assert info.peak_memory_mib is not None
    assert info.peak_memory_mib > 100  # torch alone takes more
    assert (info.device, info.processes, info.threads) == ("cpu", 1, 1)
    assert {"bibench", "python", "torch"} <= set(info.versions)


def test_memory_that_runs_out_says_what_to_change_and_keeps_the_last_epoch(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    class Full(Progress):
        def step(self, epoch: int, loss: float) -> None:
            if epoch == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingStoppedError) as caught:
        train(algorithm="bnn", dataset=tiny, out=tmp_path / "a", progress=Full())
    assert str(caught.value).startswith(
        "memory ran out with a batch of 8; try a smaller --batch-size; epoch 1 is kept in"
    )
    assert read_run(tmp_path / "a").epochs_done == 1


def test_other_data_of_the_same_name_cannot_resume_a_run(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    train(algorithm="bnn", dataset=tiny, out=tmp_path / "a")
    other = replace(tiny, num_classes=4)
    with pytest.raises(CheckpointError, match=r"in 3 classes, and tiny has 24 images .* 4 classes"):
        train(algorithm="bnn", dataset=other, out=tmp_path / "a", is_resumed=True)
    fewer = replace(tiny, train_images=tiny.train_images[:9], train_labels=tiny.train_labels[:9])
    with pytest.raises(CheckpointError, match=r"begun on 24 images .* has 9 images"):
        train(algorithm="bnn", dataset=fewer, out=tmp_path / "a", is_resumed=True)


def test_a_folder_in_which_another_process_trains_is_left_alone(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    out = tmp_path / "a"

    class Second(Progress):
        def step(self, epoch: int, loss: float) -> None:
            if epoch == 0:
                with pytest.raises(CheckpointError, match="is being trained by another process"):
                    train(algorithm="bnn", dataset=tiny, out=out)

    train(algorithm="bnn", dataset=tiny, out=out, progress=Second())
    assert read_run(out).epochs_done == EPOCHS
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # and no lock


def test_metrics_that_a_kill_in_the_first_epoch_left_are_no_run(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"epoch": 1}\n')
    (out / "metrics.csv").write_text("epoch\n1\n")
    train(algorithm="bnn", dataset=tiny, out=out)
    assert [line["epoch"] for line in lines(out)] == list(range(1, EPOCHS + 1))


def test_images_of_a_size_that_the_architecture_cannot_take_are_refused(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    with pytest.raises(
        DatasetError, match="vgg_small takes images of 32×32 pixels, and tiny has 8×8"
    ):
        train(architecture="vgg_small", dataset=tiny, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_resume_file_without_its_optimizer_is_damaged(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        train(algorithm="bnn", dataset=tiny, out=out, progress=InterruptedAfter(1))
    path = out / "resume.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({k: v for k, v in tensors.items() if k.startswith("model.")}, path, metadata)
    with pytest.raises(CheckpointError, match="is damaged: it holds no state of the optimizer"):
        train(algorithm="bnn", dataset=tiny, out=out, is_resumed=True)
    name = "optimizer.head.weight.exp_avg"
    save_file(tensors | {name: tensors[name][:1].clone()}, path, metadata)
    with pytest.raises(CheckpointError, match=r"exp_avg of head\.weight is \[1, 64\], not"):
        train(algorithm="bnn", dataset=tiny, out=out, is_resumed=True)


def test_what_an_algorithm_learned_is_not_taken_for_another_ones(
    tiny: ImagesInMemory, tmp_path: Path
) -> None:
    train(algorithm="recu", dataset=tiny, out=tmp_path / "recu")
    torch.manual_seed(0)
    run = train(
        algorithm="xnorpp",
        dataset=tiny,
        out=tmp_path / "xnorpp",
        init=tmp_path / "recu",
        recipe=replace(tiny.binary_recipe, epochs=1, learning_rate=1e-12),
    )
    model, _ = load_run(run.run_dir)
    alphas = [p for name, p in model.named_parameters() if name.endswith(".binarizer.alpha")]
    assert alphas
    assert all((alpha - 1).abs().max() < 1e-6 for alpha in alphas)
