import json
from pathlib import Path

import pytest

from bibench_train.errors import CheckpointError
from bibench_train.training.evaluation import Accuracy
from bibench_train.training.recipe import Recipe
from bibench_train.training.run_info import Best, RunInfo, read_run

INFO = RunInfo(
    name="resnet20-reactnet-digits",
    architecture="resnet20",
    architecture_options={"form": "cifar"},
    algorithm="reactnet",
    dataset="digits",
    num_classes=10,
    input_shape=(3, 32, 32),
    init="runs/resnet20-fp32-digits",
    recipe=Recipe(epochs=20, batch_size=32, learning_rate=0.002, decay_epochs=(100, 150)),
    epochs_done=20,
    accuracy=Accuracy(correct=356, images=360),
    best=Best(epoch=17, accuracy=Accuracy(correct=357, images=360), checkpoint_sha256="1" * 64),
    parameters=272474,
    seconds_per_step=0.04,
    checkpoint_sha256="0" * 64,
    versions={"bibench": "0.1.0"},
)


def test_json_has_the_names_of_the_contract() -> None:
    content = json.loads(INFO.to_json())
    assert content["schema_version"] == 1
    assert content["kind"] == "bibench-run"
    assert content["architecture_options"] == {"form": "cifar"}
    assert content["input_shape"] == [3, 32, 32]
    assert content["recipe"] == {
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 0.002,
        "optimizer": "adam",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "scheduler": "cosine",
        "warmup_epochs": 0,
        "decay_epochs": [100, 150],
        "decay_factor": 0.1,
        "label_smoothing": 0.0,
        "precision": "fp32",
        "seed": 0,
    }
    assert content["accuracy"] == {
        "percent": 98.89,
        "correct": 356,
        "images": 360,
        "split": "test",
    }
    assert content["best"]["epoch"] == 17
    assert content["best"]["accuracy"]["percent"] == 99.17


def test_what_was_written_is_read_back() -> None:
    assert RunInfo.from_json(INFO.to_json(), "here") == INFO


def test_fields_of_later_versions_are_ignored() -> None:
    content = json.loads(INFO.to_json()) | {"carbon_grams": 300}
    assert RunInfo.from_json(json.dumps(content), "here") == INFO


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", INFO.to_json().replace('"algorithm"', '"algorythm"')]
)
def test_damaged_text_is_one_clear_error(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^here: damaged, or not written by bibench train"):
        RunInfo.from_json(text, "here")


def test_another_schema_is_named() -> None:
    text = INFO.to_json().replace('"schema_version": 1', '"schema_version": 7')
    with pytest.raises(CheckpointError, match="schema 7, where bibench-run of schema 1"):
        RunInfo.from_json(text, "here")


def test_a_recipe_that_no_run_can_have_is_damage() -> None:
    with pytest.raises(CheckpointError, match="epochs and batch_size are at least 1"):
        RunInfo.from_json(INFO.to_json().replace('"epochs": 20', '"epochs": 0'), "here")


def test_a_missing_folder_and_a_folder_without_run_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing is no folder"):
        read_run(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"has no run\.json"):
        read_run(tmp_path)


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": 5},
        {"checkpoint_sha256": None},
        {"epochs_done": 99},
        {"epochs_done": "2"},
        {"input_shape": [3, "x", 32]},
        {"accuracy": {"correct": 0, "images": 0, "split": "test"}},
        {"recipe": {"epochs": 0}},
        {"recipe": None},
    ],
    ids=str,
)
def test_values_that_no_run_has_are_told_in_one_line(change: dict[str, object]) -> None:
    content = json.loads(INFO.to_json()) | change
    with pytest.raises(CheckpointError, match=r"^here: damaged, or not written by bibench train"):
        RunInfo.from_json(json.dumps(content), "here")


def test_json_nested_without_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="damaged"):
        read_run(tmp_path)


def test_a_folder_in_place_of_run_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(CheckpointError, match="is a folder"):
        read_run(tmp_path)
