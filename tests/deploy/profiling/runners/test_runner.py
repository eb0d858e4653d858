"""The contract: what every runner does, run over each one that is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bibench_deploy import targets
from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.runtimes import ABIS, add_program
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import DeviceError, UnknownNameError
from bibench_deploy.profiling.environment import Environment
from bibench_deploy.profiling.presets import find_preset
from bibench_deploy.profiling.runners import load_runner, pick_runner, runner_names, runners_for
from bibench_deploy.profiling.runners._runner import Measured, Runner
from bibench_deploy.profiling.statistics import Aggregate

# The first 20 bytes of programs for Linux, by instruction set.
ELF = {
    "aarch64": b"\x7fELF\x02" + bytes(13) + b"\xb7\x00",
    "aarch32": b"\x7fELF\x01" + bytes(13) + b"\x28\x00",
    "x86-64": b"\x7fELF\x02" + bytes(13) + b"\x3e\x00",
}
PI4 = Environment(machine="aarch64", system="Linux", python="3.11.2", packages={})
# A device that has every package and, with `a_user_who_has_every_program`, every program.
WELL_EQUIPPED = Environment(
    machine="x86_64",
    system="Linux",
    python="3.11.2",
    packages={"larq-compute-engine": "0.16.0", "numpy": "1.26.4", "onnxruntime": "1.20.1"},
)


@pytest.fixture(autouse=True)
def a_data_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(params=runner_names())
def runner(request: pytest.FixtureRequest) -> Runner:
    return load_runner(request.param)


@pytest.fixture
def device(runner: Runner, tmp_path: Path) -> Environment:
    """A device where the runner has no obstacle."""
    if runner.program is None:
        return WELL_EQUIPPED
    abi = next(iter(runner.program.sources))
    (tmp_path / "program").write_bytes(ELF[abi])
    add_program(runner.program, abi, tmp_path / "program")
    return replace(WELL_EQUIPPED, machine={"x86-64": "x86_64"}.get(abi, abi))


@pytest.fixture
def tiny(tmp_path: Path, make_lce_artifact: Callable[..., Artifact]) -> Artifact:
    return make_lce_artifact(tmp_path / "tiny")


def test_a_runner_is_called_like_its_file_and_runs_a_target(runner: Runner) -> None:
    assert load_runner(runner.name) is runner
    assert runner.target in targets.names()
    assert runner in runners_for(runner.target)


def test_a_device_that_has_all_is_no_obstacle(runner: Runner, device: Environment) -> None:
    assert runner.obstacle(device) is None
    assert pick_runner(runner.target, device, "board").target == runner.target


def test_a_device_that_has_nothing_is_told_what_to_do(runner: Runner) -> None:
    obstacle = runner.obstacle(Environment())
    assert obstacle
    assert "\n" not in obstacle


def test_a_program_has_a_source_for_each_of_its_abis(runner: Runner) -> None:
    if runner.program:
        assert runner.program.sources
        assert set(runner.program.sources) <= set(ABIS)


def test_the_files_that_a_device_needs_exist(
    runner: Runner, device: Environment, tiny: Artifact
) -> None:
    files = runner.files(tiny, device)
    assert files["model"] == tiny.model_path
    assert all(file.is_file() for file in files.values())


def test_the_command_names_the_devices_files_and_the_threads(
    runner: Runner, device: Environment, tiny: Artifact
) -> None:
    there = {role: f"/board/the {role}" for role in runner.files(tiny, device)}
    threads = 1 if runner.one_thread else 4
    command = runner.command("/opt/python3", there, threads, find_preset("quick"), seed=0)
    assert command[0] in ("/opt/python3", there.get("program"))
    line = "\n".join(command)
    assert all(path in line for path in there.values())


@pytest.mark.parametrize(
    "printed",
    ["", "garbage", "[]", "{}", '{"samples_ms": 3}', "count=1 curr=NaN", "\0" * 100, "[" * 100_000],
)
def test_a_runner_that_prints_something_else_is_a_device_error(
    runner: Runner, device: Environment, tiny: Artifact, printed: str
) -> None:
    with pytest.raises(DeviceError, match="tiny: the runner printed something else"):
        runner.read(CommandResult(0, printed, ""), tiny, runner.files(tiny, device), 1)


def test_a_runner_that_fails_keeps_its_exit_code_and_stderr(
    runner: Runner, device: Environment, tiny: Artifact
) -> None:
    result = CommandResult(2, "", "first line\nrun_model: it broke\n")
    with pytest.raises(DeviceError, match=r"failed \(exit code 2\): run_model: it broke") as caught:
        runner.read(result, tiny, runner.files(tiny, device), 1)
    assert (caught.value.exit_code, caught.value.stderr) == (2, result.stderr)


def test_the_last_words_of_a_runner_are_cut_where_they_have_no_end(
    runner: Runner, device: Environment, tiny: Artifact
) -> None:
    with pytest.raises(DeviceError) as caught:
        runner.read(CommandResult(2, "", "x" * 100_000), tiny, runner.files(tiny, device), 1)
    assert len(str(caught.value)) < 600


def test_a_runner_that_crashes_names_the_signal(
    runner: Runner, device: Environment, tiny: Artifact
) -> None:
    result = CommandResult(-11, "", "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
    with pytest.raises(DeviceError, match=r"signal 11, Segmentation fault.*nothing on stderr"):
        runner.read(result, tiny, runner.files(tiny, device), 1)


def test_what_stands_in_the_way_of_every_runner_is_one_error() -> None:
    with pytest.raises(DeviceError) as caught:
        pick_runner("lce", PI4, "pi4")
    text = str(caught.value)
    assert text.startswith("device pi4 cannot run lce artifacts: lce: larq-compute-engine has no")
    assert "lce_benchmark_model: no build for aarch64 is kept; run: bibench runtimes add" in text


def test_a_target_without_a_runner_lists_the_others() -> None:
    with pytest.raises(UnknownNameError, match="unknown runner for target"):
        runners_for("tflite")


GOOD = {
    "samples_ms": (1.0, 2),
    "warmup_count": 3,
    "warmup_settled": True,
    "other_load": 0.1,
    "init_ms": 2,
    "peak_memory_mib": None,
    "runtime": {},
    "note": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"samples_ms": ()},
        {"samples_ms": (1.0, float("nan"))},
        {"samples_ms": (1.0, float("inf"))},
        {"samples_ms": (1.0, 0)},
        {"samples_ms": (-1.0,)},
        {"samples_ms": ("1.0",)},
        {"samples_ms": (True,)},
        {"samples_ms": (), "aggregate": Aggregate(0, 1.0)},
        {"samples_ms": (), "aggregate": Aggregate(5, float("nan"))},
        {"aggregate": Aggregate(5, 1.0)},
        {"init_ms": float("nan")},
        {"init_ms": "2"},
        {"warmup_count": -1},
        {"other_load": float("inf")},
        {"peak_memory_mib": []},
        {"samples_ms": (10**400,)},
        {"samples_ms": (1e300,)},
        {"init_ms": 10**400},
        {"warmup_settled": "yes"},
        {"warmup_settled": 1},
        {"runtime": {"version": "1\x1b[31m"}},
        {"runtime": {"version": "1\n2"}},
        {"runtime": {"version": "\ud800"}},
        {"runtime": {"version": ["1"]}},
        {"runtime": {"version": "1" * 201}},
        {"samples_ms": (), "aggregate": Aggregate(5, 1.0, median_ms=float("inf"))},
        {"samples_ms": (), "aggregate": Aggregate(5, 1.0, std_ms=-1.0)},
    ],
)
def test_what_no_process_can_have_measured_is_refused(change: dict[str, Any]) -> None:
    Measured(**GOOD)
    with pytest.raises(ValueError, match=r"is no|and not both"):
        Measured(**{**GOOD, **change})
