"""The contract: what every runner does, run over each one that is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import DeviceError, UnknownNameError
from bibench_deploy.profiling.presets import find_preset
from bibench_deploy.profiling.runners import find_runner, runner_names
from bibench_deploy.profiling.runners._runner import Runner


@pytest.fixture(params=runner_names())
def runner(request: pytest.FixtureRequest) -> Runner:
    return find_runner(request.param)


@pytest.fixture
def tiny(tmp_path: Path, make_lce_artifact: Callable[..., Artifact]) -> Artifact:
    return make_lce_artifact(tmp_path / "tiny")


def test_the_scripts_that_a_device_needs_exist(runner: Runner) -> None:
    assert all(script.is_file() for script in runner.scripts())


def test_the_command_starts_the_devices_python_on_the_devices_files(runner: Runner) -> None:
    scripts = [f"/board/{script.name}" for script in runner.scripts()]
    preset = find_preset("quick")
    command = runner.command("/opt/python3", scripts, "/board/a model", 4, preset, seed=0)
    assert command[0] == "/opt/python3"
    assert {*scripts, "/board/a model", "4"} <= set(command)


@pytest.mark.parametrize("printed", ["", "garbage", "[]", "{}", '{"samples_ms": 3}'])
def test_a_runner_that_prints_something_else_is_a_device_error(
    runner: Runner, tiny: Artifact, printed: str
) -> None:
    with pytest.raises(DeviceError, match="tiny: the runner printed something else"):
        runner.read(CommandResult(0, printed, ""), tiny, 1)


def test_a_runner_that_fails_keeps_its_exit_code_and_stderr(runner: Runner, tiny: Artifact) -> None:
    result = CommandResult(2, "", "first line\nrun_model: it broke\n")
    with pytest.raises(DeviceError, match=r"failed \(exit code 2\): run_model: it broke") as caught:
        runner.read(result, tiny, 1)
    assert (caught.value.exit_code, caught.value.stderr) == (2, result.stderr)


def test_a_runner_that_crashes_names_the_signal(runner: Runner, tiny: Artifact) -> None:
    result = CommandResult(-11, "", "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
    with pytest.raises(DeviceError, match=r"signal 11, Segmentation fault.*nothing on stderr"):
        runner.read(result, tiny, 1)


def test_a_target_without_a_runner_lists_the_others() -> None:
    with pytest.raises(UnknownNameError, match='unknown runner for target "dabnn"; one of: lce'):
        find_runner("dabnn")
