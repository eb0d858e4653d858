"""A trained binarized network on the board: its engine pushed, measured there, and its answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bibench_deploy.devices.runtimes import find_program
from bibench_deploy.profiling.runners.native import NativeRunner
from bibench_deploy.targets.native import library
from bibench_train import datasets
from tests.deploy.targets.native import answer

pytestmark = pytest.mark.board

RUN = Path(__file__).parents[2] / "models" / "digits-resnet20-bnn"
IMAGES = 20


@pytest.fixture(scope="module")
def folder(board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the network is exported, with the library for the board built and kept."""
    made = tmp_path_factory.mktemp("binarized")
    for command in (
        ("export", RUN, "--target", "native", "--out", "out/bnn"),
        ("runtimes", "add", "native", "--abi", "aarch64"),
    ):
        done = board.bibench(*command, cwd=made)
        assert done.returncode == 0, done.stderr
    return made


def test_it_is_pushed_with_its_library_and_measured(board, folder: Path) -> None:
    done = board.bibench(
        "profile", "out/bnn", "--device", "board", "--threads", "1", "--out", "run.jsonl",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    blocks = [line for line in lines if line["kind"] == "block"]
    assert len(blocks) == 3
    assert {block["runtime"]["binary_kernel"] for block in blocks} == {"bibench"}
    (cell,) = (line for line in lines if line["kind"] == "cell")
    assert cell["verdict"] == "emulated"
    assert board.bibench("devices", "clean", "board", cwd=folder).returncode == 0


def test_it_answers_there_as_it_does_here(board, folder: Path, monkeypatch) -> None:
    model = folder / "out" / "bnn" / "model.onnx"
    images, labels = next(iter(datasets.load("digits").test_batches(IMAGES)))
    monkeypatch.setenv("XDG_DATA_HOME", board.environment["XDG_DATA_HOME"])
    kept = find_program(NativeRunner.program, "aarch64")
    place = board.root / "root" / "answers"
    place.mkdir()
    shutil.copy(kept.path, place / "library.so")
    shutil.copy(model, place / "model.onnx")
    shutil.copy(answer.__file__, place / "answer.py")
    np.save(place / "images.npy", images.numpy())
    names = ("answer.py", "library.so", "model.onnx", "images.npy", "answers.npy")
    board.ssh("python3", *(f"/root/answers/{name}" for name in names))
    there = np.load(place / "answers.npy")
    answer.main(library(), str(model), str(place / "images.npy"), str(place / "here.npy"))
    here = np.load(place / "here.npy")
    np.testing.assert_array_equal(there, here)
    assert (there.argmax(1) == labels.numpy()).mean() > 0.9
