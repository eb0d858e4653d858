"""What benchmarks/lce_against_larq.py says of figures; the measuring itself is `make bench`."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
THEIRS = ("CONV_2D", "LceQuantize", "LceBconv2d", "MEAN")


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.lce_against_larq")


KEPT = {"bytes_more": 1000, "latency_ratio": 1.05, "noise": 0.0}


@pytest.mark.parametrize(
    ("ours", "changes", "broken"),
    [
        (THEIRS, {}, []),
        (("REVERSE_V2", *THEIRS), {}, []),
        (("REVERSE_V2", "REVERSE_V2", *THEIRS), {}, ["other operators"]),
        ((*THEIRS, "ADD"), {}, ["other operators"]),
        (THEIRS[:3], {}, ["other operators"]),
        (("CONV_2D", "CONV_2D", "MEAN"), {}, ["other kernels", "other operators"]),
        (THEIRS, {"bytes_more": 1001}, ["larger"]),
        (THEIRS, {"latency_ratio": 1.06}, ["slower"]),
        (THEIRS, {"latency_ratio": 1.06, "noise": 0.02}, []),
    ],
)
def test_a_broken_promise_is_named(
    against: ModuleType, ours: tuple[str, ...], changes: dict[str, float], broken: list[str]
) -> None:
    comparison = against.Comparison("hand", ours, THEIRS, **{**KEPT, **changes})
    assert comparison.broken_promises == broken
    assert comparison.line().endswith(", ".join(broken) or "kept")


def test_the_line_names_what_is_more_and_what_is_less(against: ModuleType) -> None:
    ours = ("REVERSE_V2", "CONV_2D", "LceQuantize", "LceBconv2d", "ADD", "ADD")
    assert against.Comparison("hand", ours, THEIRS, 12, 1.0123, 0.004).line() == (
        "against hand: operators +1 REVERSE_V2, +2 ADD, -1 MEAN; +12 bytes; latency ×1.012 "
        "(noise 0.4 %); other operators"
    )


@pytest.mark.slow
def test_the_operators_and_the_size_are_those_of_a_model_written_by_hand(
    against: ModuleType, tmp_path: Path
) -> None:
    from bibench_deploy.targets.lce.flatbuffer import read_tflite

    against.write_models(tmp_path)
    ours, theirs = (tmp_path / f"{name}.tflite" for name in ("resnet18", "larq_resnet18"))
    names = [tuple(node.name for node in read_tflite(path).operators) for path in (ours, theirs)]
    # In Keras a strided 1×1 shortcut reads other pixels than in PyTorch: ours picks PyTorch's.
    assert against.operators_between(*names) == ({"REVERSE_V2": 1, "STRIDED_SLICE": 3}, {})
    assert ours.stat().st_size - theirs.stat().st_size <= against.MOST_BYTES


def test_the_examples_in_the_text_are_right(against: ModuleType) -> None:
    interleaved = importlib.import_module("benchmarks._interleaved")
    for module in (against, interleaved):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed
