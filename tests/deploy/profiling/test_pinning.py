"""pin.sh with real processes, and a folder that stands for /sys/devices/system/cpu."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports.local import LocalTransport
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling import pinning
from bibench_deploy.profiling.pinning import pinned

BEFORE = {0: "schedutil", 1: "ondemand", 2: "powersave"}
HELD = dict.fromkeys(BEFORE, "performance")


@pytest.fixture
def cpus(tmp_path: Path) -> Path:
    for core, governor in BEFORE.items():
        folder = tmp_path / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
    return tmp_path


@pytest.fixture
def transport() -> LocalTransport:
    return LocalTransport(Device("local", "here", "local"))


def governors(cpus: Path) -> dict[int, str]:
    return {core: (cpus / f"cpu{core}/cpufreq/scaling_governor").read_text().strip()
            for core in BEFORE}  # fmt: skip


def wait_for(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_governor_is_held_inside_and_put_back_after(
    cpus: Path, transport: LocalTransport
) -> None:
    with pinned(transport, None, str(cpus)):
        assert governors(cpus) == HELD
    assert governors(cpus) == BEFORE


def test_only_the_cores_in_use_are_held(cpus: Path, transport: LocalTransport) -> None:
    with pinned(transport, (1,), str(cpus)):
        assert governors(cpus) == BEFORE | {1: "performance"}
    assert governors(cpus) == BEFORE


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("cut")])
def test_it_is_put_back_after_an_error(
    cpus: Path, transport: LocalTransport, error: BaseException
) -> None:
    with pytest.raises(type(error)), pinned(transport, None, str(cpus)):
        raise error
    assert governors(cpus) == BEFORE


@pytest.mark.parametrize("which", ["its owner", "the script"])
def test_it_is_put_back_when_one_is_killed(cpus: Path, which: str) -> None:
    code = (
        "import sys, time\n"
        "from bibench_deploy.devices.registry import Device\n"
        "from bibench_deploy.devices.transports.local import LocalTransport\n"
        "from bibench_deploy.profiling.pinning import pinned\n"
        "with pinned(LocalTransport(Device('local', 'here', 'local')), None, sys.argv[1]):\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(cpus)])
    try:
        wait_for(lambda: governors(cpus) == HELD)
        if which == "its owner":
            owner.kill()
        else:
            children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        wait_for(lambda: governors(cpus) == BEFORE)
    finally:
        owner.kill()
        owner.wait()


def test_a_governor_that_may_not_be_set_is_one_line(cpus: Path, transport: LocalTransport) -> None:
    # Root may write any file but one of the kernel's.
    file = cpus / "cpu2/cpufreq/scaling_governor"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/ostype")
    with (
        pytest.raises(DeviceError, match=r"device local: may not write .*needs root there"),
        pinned(transport, None, str(cpus)),
    ):
        pass
    assert governors(cpus) == BEFORE | {2: "Linux"}


@pytest.mark.parametrize("text", ["", "two words", "a=b", "a\tb", "$(echo b)"])
def test_what_is_no_governor_is_not_put_back_anywhere(
    cpus: Path, transport: LocalTransport, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cpus / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (cpus / "cpu1/cpufreq/scaling_governor").write_text(f"{text}\n")
    with (
        pytest.raises(DeviceError, match=r"device local: shows no governor's name in .*cpu1/"),
        pinned(transport, None, str(cpus)),
    ):
        pass
    assert governors(cpus) == BEFORE | {1: text}
    assert list(here.iterdir()) == []


def test_a_device_without_governors_is_one_line(tmp_path: Path, transport: LocalTransport) -> None:
    with (
        pytest.raises(DeviceError, match="device local: shows no frequency governor"),
        pinned(transport, None, str(tmp_path)),
    ):
        pass


def test_a_shell_that_says_nothing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, cpus: Path, transport: LocalTransport, tmp_path: Path
) -> None:
    mute = tmp_path / "mute.sh"
    mute.write_text("sleep 60")
    monkeypatch.setattr(pinning, "_PIN", mute)
    monkeypatch.setattr(pinning, "_ANSWER_S", 0.2)
    with pytest.raises(DeviceError, match="cannot set the governor"), pinned(transport, None):
        pass
