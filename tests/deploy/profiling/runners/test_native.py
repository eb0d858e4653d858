from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact, sha256_of
from bibench_deploy.devices.runtimes import add_program
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import MissingLibraryError
from bibench_deploy.profiling.environment import Environment
from bibench_deploy.profiling.presets import find_preset
from bibench_deploy.profiling.runners import native as module
from bibench_deploy.profiling.runners.native import NativeRunner
from bibench_deploy.targets.native.shared_library import find_library
from tests.deploy.profiling.runners.test_onnx import PRINTED

HERE = Environment(
    machine=platform.machine(),
    system=platform.system(),
    python="3.11.2",
    packages={"onnxruntime": "1.20.1", "numpy": "1.26.4"},
)
OTHER = replace(HERE, machine="x86_64" if HERE.abi == "aarch64" else "aarch64")
PI = replace(HERE, machine="aarch64", system="Linux")


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_this_machine_needs_nothing_but_what_bibench_came_with(
    tmp_path: Path, make_lce_artifact: Callable[..., Artifact]
) -> None:
    artifact = make_lce_artifact(tmp_path / "tiny")
    assert NativeRunner().obstacle(HERE) is None
    files = NativeRunner().files(artifact, HERE)
    assert sorted(files) == ["library", "model", "script"]
    assert files["library"] == find_library()
    command = NativeRunner().command(
        "python3", {role: f"/{role}" for role in files}, 2, find_preset("quick"), 0
    )
    words = ["--threads", "2", "--seed", "0", "--custom-ops-library", "/library"]
    assert command[1:10] == ["/script", "--model", "/model", *words]


def test_another_instruction_set_needs_a_build_that_is_kept() -> None:
    obstacle = NativeRunner().obstacle(OTHER)
    assert obstacle is not None
    if OTHER.abi == "aarch64":
        assert obstacle.endswith("run: bibench runtimes add native --abi aarch64")


def test_a_build_that_is_kept_is_pushed_to_its_boards(
    tmp_path: Path, make_lce_artifact: Callable[..., Artifact]
) -> None:
    file = tmp_path / "libbibench_native.so"
    file.write_bytes(b"\x7fELF\x02" + bytes(13) + (183).to_bytes(2, "little"))
    kept = add_program(NativeRunner.program, "aarch64", file)
    artifact = make_lce_artifact(tmp_path / "tiny")
    assert NativeRunner().obstacle(PI) is None
    assert NativeRunner().files(artifact, PI)["library"] == kept.path


def test_packages_that_are_missing_come_first() -> None:
    obstacle = NativeRunner().obstacle(replace(OTHER, packages={}))
    assert obstacle is not None
    assert "python -m pip install onnxruntime numpy" in obstacle


def test_a_library_that_was_not_built_is_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise MissingLibraryError("install a compiler")

    monkeypatch.setattr(module, "find_library", missing)
    assert NativeRunner().obstacle(HERE) == "install a compiler"


def test_results_name_the_library(
    tmp_path: Path, make_lce_artifact: Callable[..., Artifact]
) -> None:
    artifact = make_lce_artifact(tmp_path / "tiny")
    files = {"library": find_library()}
    result = CommandResult(0, json.dumps(PRINTED), "")
    runtime = NativeRunner().read(result, artifact, files, 1).runtime
    assert runtime["binary_kernel"] == "bibench"
    assert runtime["library_sha256"] == sha256_of(find_library())
    twin = Artifact.load(artifact.directory / "fp32")
    assert NativeRunner().read(result, twin, files, 1).runtime["binary_kernel"] is None
