from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import MissingExtraError
from bibench_deploy.profiling.runners.lce import LceRunner

PRINTED = {
    "samples_ms": [1.0, 1.5],
    "warmup_count": 10,
    "warmup_settled": True,
    "other_load": None,
    "init_ms": 2,
    "peak_memory_mib": 50.0,
    "larq_compute_engine": "0.16.0",
    "extension_sha256": "00",
    "python": "3.11.7",
    "numpy": "1.26.4",
}


@pytest.fixture
def tiny(tmp_path: Path, make_lce_artifact: Callable[..., Artifact]) -> Artifact:
    return make_lce_artifact(tmp_path / "tiny")


def printed() -> CommandResult:
    return CommandResult(0, json.dumps(PRINTED), "")


def test_a_binarized_model_runs_the_indirect_kernel_and_xnnpack(tiny: Artifact) -> None:
    measured = LceRunner().read(printed(), tiny, {}, 1)
    assert measured.samples_ms == (1.0, 1.5)
    assert measured.runtime["binary_kernel"] == "indirect"
    assert measured.runtime["float_kernel"] == "xnnpack"
    assert measured.note is None


def test_a_float_model_runs_no_binary_kernel(tiny: Artifact) -> None:
    twin = Artifact.load(tiny.directory / "fp32")
    measured = LceRunner().read(printed(), twin, {}, 2)
    assert measured.runtime["binary_kernel"] is None
    assert measured.runtime["float_kernel"] == "xnnpack"
    assert measured.note is None


def test_a_binarized_model_on_two_threads_notes_what_they_are_used_for(tiny: Artifact) -> None:
    assert LceRunner().read(printed(), tiny, {}, 2).note == (
        "the indirect binary kernel runs on one thread; only the float layers use 2"
    )


def test_a_missing_runtime_names_the_extra_that_brings_it(tiny: Artifact) -> None:
    stderr = "run_model: larq_compute_engine is not installed; run: python -m pip install …\n"
    with pytest.raises(MissingExtraError, match=r"\.\[profile\]"):
        LceRunner().read(CommandResult(2, "", stderr), tiny, {}, 1)
