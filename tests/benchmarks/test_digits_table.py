"""The texts that benchmarks/digits_table.py writes; the training itself is `make digits-table`."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the module sets it for the processes it starts
    return importlib.import_module("benchmarks.digits_table")


def rows(table: ModuleType, counts: dict[tuple[str, int], int]) -> dict[tuple[str, int], Any]:
    return {
        (name, seed): table.Row(name, seed, correct, 360, round(correct / 3.6, 2), 10.0 + seed)
        for (name, seed), correct in counts.items()
    }


def test_what_is_written_is_read_again(table: ModuleType, tmp_path: Path) -> None:
    found = rows(table, {("fp32", 0): 359, ("bnn", 0): 350})
    table.write(table.Options(out=tmp_path), found)
    assert table.read_rows(tmp_path) == found
    assert (tmp_path / "digits-accuracy.csv").read_text().splitlines() == [
        "algorithm,seed,correct,images,accuracy,seconds",
        "fp32,0,359,360,99.72,10.0",
        "bnn,0,350,360,97.22,10.0",
    ]
    assert table.read_rows(tmp_path / "nothing") == {}


def line(table: ModuleType, name: str, counts: dict[tuple[str, int], int]) -> list[str]:
    text = table.to_markdown(table.Options(), list(rows(table, counts).values()))
    (found,) = (line for line in text.splitlines() if line.startswith(f"| `{name}`"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_line_has_mean_deviation_and_the_difference_to_fp32_of_the_same_seeds(
    table: ModuleType,
) -> None:
    counts = {("fp32", 0): 360, ("fp32", 1): 356, ("fp32", 2): 0, ("bnn", 0): 356, ("bnn", 1): 352}
    assert line(table, "bnn", counts) == [
        *("`bnn`", "98.33 ± 0.79", "-1.11", "0, 1", "within 4 points: kept")
    ]


@pytest.mark.parametrize(
    ("fp32", "bnn", "promises"),
    [
        (355, 341, ("kept", "kept")),
        (354, 340, ("**broken**", "kept")),
        (355, 340, ("kept", "**broken**")),
    ],
)
def test_a_broken_promise_is_said(
    table: ModuleType, fp32: int, bnn: int, promises: tuple[str, str]
) -> None:
    counts = {("fp32", 0): fp32, ("bnn", 0): bnn}
    assert line(table, "fp32", counts)[-1] == f"≥ 98.5 %: {promises[0]}"
    assert line(table, "bnn", counts)[-1] == f"within 4 points: {promises[1]}"


def test_the_page_names_the_command_without_the_folder_of_a_machine(
    table: ModuleType, tmp_path: Path
) -> None:
    words = ["--seeds", "0", "--algorithms", "bnn", "--epochs", "2", "--out", str(tmp_path)]
    options = table.parse(words)
    assert options.command == f"python -m benchmarks.digits_table {' '.join(words[:6])}"
    assert table.Options().command == "make digits-table"


def test_trial_runs_cannot_overwrite_the_docs(
    table: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        table.parse(["--epochs", "2"])
    assert "give --out" in capsys.readouterr().err


class InThisProcess:
    """A pool that does its work at once."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except RuntimeError as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None: ...


def test_only_what_is_missing_is_trained_and_after_the_fp32_run_of_its_seed(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train_one(options: object, algorithm: str, seed: int) -> object:
        trained.append((algorithm, seed))
        if (algorithm, seed) == ("bnn", 1):
            raise RuntimeError("diverged")
        return table.Row(algorithm, seed, 355, 360, 98.61, 1.0)

    monkeypatch.setattr(table, "train_one", train_one)
    monkeypatch.setattr(table, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(table, "is_there", lambda _, seed: seed == 0)
    options = table.Options(seeds=(0, 1, 2), algorithms=("bireal", "bnn"), out=tmp_path)
    done = rows(table, dict.fromkeys([("fp32", 0), ("bnn", 0), ("fp32", 2)], 359))
    done |= rows(table, dict.fromkeys([("bireal", 2), ("bnn", 2)], 350))
    failures = table.train_missing(options, done)
    assert trained[0] == ("bireal", 0)
    assert trained[1] == ("fp32", 1)
    assert sorted(trained[2:]) == [("bireal", 1), ("bnn", 1)]
    assert failures == ["bnn seed 1: RuntimeError: diverged"]
    assert set(table.read_rows(tmp_path)) == set(options.keys) - {("bnn", 1)}
