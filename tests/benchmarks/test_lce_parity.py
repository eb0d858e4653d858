"""The table that benchmarks/lce_parity.py keeps; the comparing itself takes hours."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bibench_deploy.errors import ParityError
from bibench_deploy.targets.lce.target import LceTarget
from bibench_train import algorithms, architectures

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.lce_parity")


def row(table: ModuleType, algorithm: str = "bnn", **changes: Any) -> Any:
    facts = {"signs": 1000, "flips": 1, "unexplained": 0, "max_error": 1e-6}
    rest = {"inputs": 40, "top1_agreement": 1.0, "seconds": 2.5, "failure": ""}
    return table.Row(algorithm, "resnet20", 32, **{**facts, **rest, **changes})


def test_every_algorithm_and_architecture_is_in_it(parity: ModuleType) -> None:
    options = parity.parse([])
    assert set(options.algorithms) == set(algorithms.names())
    assert set(options.architectures) == set(architectures.names())
    assert len(options.keys) == len(algorithms.names()) * 13
    assert options.keys[-1][2] == 224


def test_what_is_written_is_read_again(parity: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert parity.read_rows(path) == {}
    rows = [row(parity, "xnor", failure='of "this", or\nthat'), row(parity, max_error=1.25e-7)]
    parity.write_rows(path, rows)
    assert sorted(parity.read_rows(path).values()) == sorted(rows)


@pytest.fixture
def case(parity: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Cases that were run, instead of a run of them."""
    done: list[Any] = []

    def run_case(key: Any, inputs: int, writer: Any) -> Any:
        done.append(key)
        return parity.Row(*key, inputs, 10, 0, 0, 0.0, 1.0, 0.1, "" if key[2] < 65 else "lost")

    class Open:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(parity, "run_case", run_case)
    monkeypatch.setattr(LceTarget, "open_writer", lambda _: Open())
    return done


def test_only_what_is_missing_or_failed_is_run_the_small_ones_first(
    parity: ModuleType, case: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    words = ["--algorithms", "bnn", "--architectures", "resnet20", "--out", str(out)]
    parity.write_rows(out, [row(parity)])
    assert parity.main([*words, "--sizes", "65", "32", "33"]) == 1
    assert case == [("bnn", "resnet20", 33), ("bnn", "resnet20", 65)]
    case.clear()
    assert parity.main([*words, "--sizes", "65", "33"]) == 1
    assert case == [("bnn", "resnet20", 65)]
    assert parity.main([*words, "--sizes", "33"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "1 cases, 0 of 10 signs flip by rounding, 0 unexplained: kept"
    )


def test_an_unexplained_flip_breaks_the_promise(parity: ModuleType) -> None:
    rows = [row(parity), row(parity, "fda", unexplained=3, failure="LCE takes 3 of 9 signs …")]
    assert parity.summary(rows).endswith("3 unexplained: broken for fda resnet20 32")


def test_a_case_that_fails_is_a_line_with_the_reason(
    parity: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ParityError("LCE takes 12 of 99 signs otherwise\nthan the ONNX graph")

    monkeypatch.setattr(parity, "_compared", fail)
    found = parity.run_case(("bnn", "vgg_small", 32), 40, None)
    assert found.unexplained == 12
    assert found.failure == "LCE takes 12 of 99 signs otherwise than the ONNX graph"
    assert parity.line(found).endswith(found.failure)


def test_the_examples_in_the_text_are_right(parity: ModuleType) -> None:
    result = doctest.testmod(parity)
    assert result.attempted
    assert not result.failed


@pytest.mark.slow
def test_a_case_compares_all_inputs(parity: ModuleType, lce_writer: Any) -> None:
    found = parity.run_case(("reactnet", "resnet20", 32), 3, lce_writer)
    assert parity.is_kept(found), found.failure
    assert found.inputs == 3
    # Each layer's signs, of three images, twice.
    maps = 7 * 16 * 32 * 32 + 6 * 32 * 16 * 16 + 5 * 64 * 8 * 8
    assert found.signs == 2 * 3 * maps
    assert found.top1_agreement == 1
