from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.profiling.environment import Environment
from bibench_deploy.profiling.presets import find_preset
from bibench_deploy.profiling.runners.onnx import OnnxRunner

PRINTED = {
    "samples_ms": [1.0, 1.5],
    "warmup_count": 10,
    "warmup_settled": True,
    "other_load": None,
    "init_ms": 2,
    "peak_memory_mib": 50.0,
    "onnxruntime": "1.20.1",
    "extension_sha256": "00",
    "python": "3.11.2",
    "numpy": "1.26.4",
}


def test_the_object_that_the_script_prints_is_read(
    tmp_path: Path, make_lce_artifact: Callable[..., Artifact]
) -> None:
    artifact = make_lce_artifact(tmp_path / "tiny")
    measured = OnnxRunner().read(CommandResult(0, json.dumps(PRINTED), ""), artifact, {}, 1)
    assert measured.samples_ms == (1.0, 1.5)
    assert measured.runtime["name"] == "onnxruntime"
    assert measured.runtime["version"] == "1.20.1"
    assert measured.runtime["binary_kernel"] is None


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        ({"numpy": "1.26"}, "its Python has no onnxruntime; run there: python -m pip install onn"),
        ({}, "no onnxruntime and no numpy; run there: python -m pip install onnxruntime numpy"),
    ],
)
def test_missing_packages_are_named_with_the_command_that_brings_them(
    packages: dict[str, str], told: str
) -> None:
    obstacle = OnnxRunner().obstacle(Environment(python="3.9.2", packages=packages))
    assert obstacle is not None
    assert told in obstacle


def test_a_library_of_operators_is_passed_on() -> None:
    files = {"script": "/s", "model": "/m", "library": "/l"}
    command = OnnxRunner().command("python3", files, 2, find_preset("quick"), 0)
    words = ["--threads", "2", "--seed", "0", "--custom-ops-library", "/l"]
    assert command[:10] == ["python3", "/s", "--model", "/m", *words]
