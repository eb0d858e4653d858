"""`bibench train`, on a data set of 24 images."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bibench_deploy.cli import app as command_line
from bibench_deploy.export.deployability import targets_for
from bibench_train import algorithms, datasets
from bibench_train.datasets._dataset import ImagesInMemory
from bibench_train.training import Accuracy, Progress, Recipe, read_run

Run = Callable[..., Any]


@pytest.fixture
def bibench(tiny: ImagesInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "names", lambda: ("digits", "tiny"))
    monkeypatch.setattr(datasets, "load", lambda *_: tiny)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(command_line.app, ["train", *arguments])

    return run


def test_alone_it_trains_the_default_and_says_what_it_picked(bibench: Run) -> None:
    result = bibench("--dataset", "tiny", "--epochs", "1")
    assert result.exit_code == 0, result.stderr
    assert "training resnet20 reactnet on tiny from scratch" in result.stderr
    assert "no resnet20 fp32 run on tiny found; --init names one" in result.stderr
    assert "epoch 1/1" in result.stderr
    assert result.stdout.startswith("runs/resnet20-reactnet-tiny: ")
    *_, cost = result.stdout.splitlines()
    assert re.fullmatch(
        r"  cost       [\d.]+ s per step, [\d.]+% of it waiting for data; "
        r"peak memory [\d,]+ MiB",
        cost,
    )
    info = read_run(Path("runs/resnet20-reactnet-tiny"))
    assert (info.architecture, info.algorithm, info.init) == ("resnet20", "reactnet", None)


def test_lint_warns_before_the_first_epoch_with_the_codes_of_lint(bibench: Run) -> None:
    options = ["--dataset", "tiny", "--algorithm", "xnor", "--epochs", "1"]
    result = bibench(*options, "--lint", "lce")
    assert result.exit_code == 0, result.stderr
    begun, warned, *epochs = result.stderr.splitlines()
    assert begun.startswith("training resnet20 xnor on tiny")
    assert warned.startswith("lint for lce: error: BIB202 activation-rescaling: stages.0.0.conv1")
    assert any("epoch 1/1" in line for line in epochs)


def test_lint_judges_what_is_left_at_the_end_of_the_schedule(bibench: Run) -> None:
    # BNext's weights are soft in every epoch but the last, and are judged as in the last.
    options = ["--dataset", "tiny", "--algorithm", "bnext", "--epochs", "1"]
    result = bibench(*options, "--lint", "lce")
    said = [line for line in result.stderr.splitlines() if line.startswith("lint for lce: ")]
    assert said
    assert not [line for line in said if "error" in line]


def test_what_the_project_ignores_is_not_warned_of(bibench: Run) -> None:
    options = ["--dataset", "tiny", "--algorithm", "xnor", "--epochs", "1", "--lint", "lce"]
    Path("pyproject.toml").write_text('[tool.bibench.lint]\nignore = ["BIB202"]\n')
    assert "BIB202" not in bibench(*options).stderr
    Path("pyproject.toml").write_text('[tool.bibench.lint]\nignore = ["BIB9"]\n')
    result = bibench(*options, "--out", "other")
    assert (result.exit_code, Path("other").exists()) == (2, False)
    assert "pyproject.toml" in result.stderr


def test_an_unknown_target_to_lint_for_ends_before_anything_begins(bibench: Run) -> None:
    result = bibench("--dataset", "tiny", "--lint", "lca")
    assert result.exit_code == 2
    assert result.stderr.startswith('bibench: unknown target "lca" (did you mean "lce"?)')
    assert not Path("runs").exists()


def test_a_second_run_takes_a_free_folder(bibench: Run) -> None:
    for _ in range(2):
        assert bibench("--dataset", "tiny", "--epochs", "1").exit_code == 0
    assert {path.name for path in Path("runs").iterdir()} == {
        "resnet20-reactnet-tiny",
        "resnet20-reactnet-tiny-2",
    }


def test_a_binarized_run_starts_from_the_fp32_run_that_is_there(bibench: Run) -> None:
    assert bibench("--dataset", "tiny", "--algorithm", "fp32", "--epochs", "1").exit_code == 0
    result = bibench("--dataset", "tiny", "--epochs", "1")
    assert "on tiny from runs/resnet20-fp32-tiny into" in result.stderr
    assert read_run(Path("runs/resnet20-reactnet-tiny")).init == "runs/resnet20-fp32-tiny"
    result = bibench("--dataset", "tiny", "--epochs", "1", "--init", "none", "--out", "scratch")
    assert "from scratch into scratch" in result.stderr
    assert read_run(Path("scratch")).init is None


def test_without_a_run_the_shipped_fp32_model_is_the_start(bibench: Run) -> None:
    assert bibench("--dataset", "tiny", "--algorithm", "fp32", "--epochs", "1").exit_code == 0
    Path("models").mkdir()
    shutil.move("runs/resnet20-fp32-tiny", "models/tiny-resnet20-fp32")
    result = bibench("--dataset", "tiny", "--epochs", "1")
    assert "from models/tiny-resnet20-fp32 into" in result.stderr


def test_options_reach_the_recipe(bibench: Run) -> None:
    result = bibench(
        *("vgg_small", "--algorithm", "nope"),
    )
    assert result.exit_code == 2
    result = bibench(
        *("resnet20", "--algorithm", "bnn", "--dataset", "tiny", "--out", "here"),
        *("--epochs", "2", "--batch-size", "4", "--lr", "0.01", "--seed", "3"),
    )
    assert result.exit_code == 0, result.stderr
    recipe = read_run(Path("here")).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.seed) == (2, 4, 0.01, 3)


def test_json_is_alone_on_stdout(bibench: Run) -> None:
    result = bibench("--dataset", "tiny", "--epochs", "1", "--json")
    content = json.loads(result.stdout)
    assert content["run_dir"] == "runs/resnet20-reactnet-tiny"
    assert content["accuracy"] == round(100 * content["correct"] / content["images"], 2)


class _InterruptedInEpoch2(Progress):
    def step(self, epoch: int, loss: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_epoch_and_says_how_to_resume(
    bibench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("bibench_train.training.progress.stderr_progress", _InterruptedInEpoch2)
        result = bibench("--dataset", "tiny", "--algorithm", "bnn")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "bibench: interrupted; epoch 1 is kept in runs/resnet20-bnn-tiny; continue with: "
        "bibench train --resume --out runs/resnet20-bnn-tiny --data DIR"
    )
    result = bibench("--resume", "--out", "runs/resnet20-bnn-tiny")
    assert result.exit_code == 0, result.stderr
    assert "resuming resnet20 bnn on tiny in runs/resnet20-bnn-tiny after epoch 1 of 3" in (
        result.stderr
    )
    assert read_run(Path("runs/resnet20-bnn-tiny")).epochs_done == 3


def test_resume_alone_takes_the_latest_run_that_fits(bibench: Run) -> None:
    for algorithm in ("bnn", "bireal"):
        bibench("--dataset", "tiny", "--algorithm", algorithm, "--epochs", "1")
    assert "resuming resnet20 bireal" in bibench("--resume").stderr
    assert "resuming resnet20 bnn" in bibench("--resume", "--algorithm", "bnn").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet21"], 'unknown architecture "resnet21" (did you mean "resnet20"?)'),
        (["--algorithm", "reaktnet"], '(did you mean "reactnet"?); one of: fp32, '),
        (["--dataset", "digit"], 'unknown dataset "digit" (did you mean "digits"?)'),
        (["--init", "nowhere"], "nowhere is no folder; a run is a folder written by bibench train"),
        (["--resume"], "no run of this kind in runs/ can be resumed"),
        (["--resume", "--out", "nowhere"], "nowhere has no resume.safetensors"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(
    bibench: Run, arguments: list[str], message: str
) -> None:
    result = bibench(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("bibench: ")
    assert not Path("runs").exists()


@pytest.mark.parametrize("arguments", [["--lr", "0"], ["--resume", "--init", "a"]])
def test_options_that_make_no_sense_are_refused(bibench: Run, arguments: list[str]) -> None:
    assert bibench(*arguments).exit_code == 2


def test_a_taken_folder_is_refused_with_both_ways_out(bibench: Run) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    result = bibench("--dataset", "tiny", "--out", "taken")
    assert result.exit_code == 2
    assert "continue the run in it with --resume, or choose another --out" in result.stderr


def test_list_shows_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    shown = runner.invoke(command_line.app, ["train", "--list"]).stdout
    listed = json.loads(runner.invoke(command_line.app, ["train", "--list", "--json"]).stdout)
    names = [row["name"] for rows in listed.values() for row in rows]
    assert {"resnet20", "vgg_small", "bireal", "bnn", "reactnet", "cifar10", "digits"} <= set(names)
    assert all(name in shown for name in names)


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_list_says_what_each_algorithm_is_and_which_targets_hold_it(
    width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    runner = CliRunner()
    shown = runner.invoke(command_line.app, ["train", "--list"]).stdout
    listed = json.loads(runner.invoke(command_line.app, ["train", "--list", "--json"]).stdout)
    rows = {row["name"]: row for row in listed["algorithms"]}
    assert set(rows) == set(algorithms.names())
    for name, row in rows.items():
        algorithm = algorithms.load(name)
        assert algorithm is not None
        assert row == {
            "name": name,
            "title": algorithm.title,
            "scale": algorithm.scale,
            "estimators": algorithm.gradient,
            "schedule": algorithm.schedule,
            "remains": algorithm.remains,
            "targets": targets_for(algorithm),
            "source": algorithm.source,
        }
        assert f"{name} " in shown
        assert algorithm.source in shown
    assert rows["bireal"]["targets"] == ["dabnn", "lce", "native", "onnx"]
    assert rows["reactnet"]["targets"] == ["lce", "native", "onnx"]
    assert rows["xnor"]["targets"] == []
    assert max(map(len, shown.splitlines())) <= int(width)


def test_help_has_an_example_and_loads_no_torch() -> None:
    code = (
        "import sys; from bibench_deploy.cli.app import app\n"
        "try: app(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Example: bibench train resnet20 --algorithm bireal" in done.stdout


def test_every_option_of_the_recipe_arrives(bibench: Run) -> None:
    result = bibench(
        *("--dataset", "tiny", "--out", "a", "--epochs", "3", "--batch-size", "6", "--lr", "0.01"),
        *("--optimizer", "sgd", "--momentum", "0.8", "--weight-decay", "0.001"),
        *("--scheduler", "step", "--warmup-epochs", "1", "--decay-epochs", "2,3"),
        *("--decay-factor", "0.5", "--label-smoothing", "0.1", "--precision", "bf16"),
        *("--seed", "7", "--device", "cpu", "--tensorboard"),
    )
    assert result.exit_code == 0, result.stderr
    assert read_run(Path("a")).recipe == Recipe(
        epochs=3,
        batch_size=6,
        learning_rate=0.01,
        optimizer="sgd",
        momentum=0.8,
        weight_decay=0.001,
        scheduler="step",
        warmup_epochs=1,
        decay_epochs=(2, 3),
        decay_factor=0.5,
        label_smoothing=0.1,
        precision="bf16",
        seed=7,
    )
    assert (Path("a") / "tensorboard").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "lion"], "optimizer is one of adam, adamw, sgd"),
        (["--scheduler", "linear"], "scheduler is one of cosine, step, constant"),
        (["--precision", "fp16"], "precision is one of fp32, bf16"),
        (["--epochs", "3", "--warmup-epochs", "3"], "less than the 3 epochs, not 3"),
        (["--decay-epochs", "1;2"], '"1;2" is no list of epochs such as 100,150'),
        (["--workers", "2"], "--workers: tiny is held in memory"),
        (["--device", "tpu"], 'one of auto, cpu, cuda, not "tpu"'),
        (["--epoch", "3"], "No such option: --epoch"),
    ],
)
def test_a_value_that_no_run_can_have_ends_in_one_line(
    bibench: Run, arguments: list[str], message: str
) -> None:
    result = bibench("--dataset", "tiny", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.endswith("; see bibench train --help\n")
    assert result.stderr.count("\n") == 1
    assert not Path("runs").exists()


def test_only_the_first_of_several_processes_speaks(
    bibench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    result = bibench("--dataset", "tiny", "--epochs", "1")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "training" not in result.stderr


def test_the_best_epoch_is_said_where_it_is_not_the_last(
    bibench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([9, 6])
    monkeypatch.setattr(
        "bibench_train.training.loop.evaluate", lambda *_, **__: Accuracy(next(counts), 12)
    )
    result = bibench("--dataset", "tiny", "--epochs", "2")
    assert "50.00 %, 6 of 12 test images" in result.stdout
    assert "  best       75.00 % after epoch 1" in result.stdout
