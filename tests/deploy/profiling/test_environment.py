from __future__ import annotations

import getpass
import json
import platform
import socket
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports._transport import CommandResult, Transport
from bibench_deploy.devices.transports.local import LocalTransport
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling.environment import Environment, read_environment

# What the commands print, cut to the lines that count.
RASPBERRY_PI = {
    "uname -s": "Linux\n",
    "uname -m": "aarch64\n",
    "uname -r": "6.1.21-v8+\n",
    "cat /proc/cpuinfo": "processor\t: 0\n\nModel\t\t: Raspberry Pi 4 Model B\n",
    "cat /proc/meminfo": "MemTotal:        3884032 kB\nMemFree:  100 kB\n",
    "nproc": "4\n",
    "python3 --version": "Python 3.9.2\n",
    "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
}
MACBOOK = {
    "uname -s": "Darwin\n",
    "uname -m": "arm64\n",
    "uname -r": "23.1.0\n",
    "sysctl -n machdep.cpu.brand_string": "Apple M1\n",
    "sysctl -n hw.logicalcpu": "8\n",
    "sysctl -n hw.memsize": "17179869184\n",
    "python3 --version": "Python 3.11.5\n",
}


class ScriptedTransport(Transport):
    """Answers by command, not by order."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(Device("board", "a board", "fake"))
        self.answers = answers

    def run(self, arguments: object, *, timeout_s: float) -> CommandResult:
        assert isinstance(arguments, tuple | list)
        line = " ".join(arguments)
        if line.startswith("nproc") and line not in self.answers:
            raise DeviceError("device board: cannot start nproc")
        if line not in self.answers:
            return CommandResult(1, "", f"{line}: no such file")
        return CommandResult(0, self.answers[line], "")

    def push(self, file: Path) -> str:
        raise NotImplementedError

    def pull(self, path: str, file: Path) -> None:
        raise NotImplementedError


def test_a_board_is_read_from_proc() -> None:
    assert read_environment(ScriptedTransport(RASPBERRY_PI)) == Environment(
        machine="aarch64",
        cpu="Raspberry Pi 4 Model B",
        cores=4,
        memory_mib=3793,
        system="Linux",
        kernel="6.1.21-v8+",
        python="3.9.2",
        governor="ondemand",
    )


def test_a_mac_is_read_from_sysctl() -> None:
    assert read_environment(ScriptedTransport(MACBOOK)) == Environment(
        machine="arm64",
        cpu="Apple M1",
        cores=8,
        memory_mib=16384,
        system="Darwin",
        kernel="23.1.0",
        python="3.11.5",
        governor=None,
    )


def test_what_a_device_does_not_tell_is_none() -> None:
    environment = read_environment(ScriptedTransport({}))
    assert set(environment.as_json().values()) == {None}


def test_this_machine_tells_what_it_is_but_not_whose_it_is() -> None:
    environment = read_environment(LocalTransport(Device("local", "this machine", "local")))
    assert environment.machine == platform.machine()
    assert environment.python == platform.python_version()
    assert environment.cores is not None
    text = json.dumps(environment.as_json())
    assert str(Path.home()) not in text
    if len(socket.gethostname()) > 5:
        assert socket.gethostname() not in text
    if len(getpass.getuser()) > 5:
        assert getpass.getuser() not in text


@pytest.mark.parametrize("key", ["model name", "Model", "Hardware"])
def test_the_cpu_is_named_by_whichever_key_the_kernel_uses(key: str) -> None:
    transport = ScriptedTransport({"cat /proc/cpuinfo": f"processor : 0\n{key}\t: Chip 1\n"})
    assert read_environment(transport).cpu == "Chip 1"
