from __future__ import annotations

import getpass
import json
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.devices.transports.local import LocalTransport
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling import environment
from bibench_deploy.profiling.environment import (
    Cluster,
    Environment,
    parse_environment,
    read_environment,
)

# What probe.sh prints, cut to the lines that count.
RASPBERRY_PI = """
@time
1700000003
@system
Linux
@machine
aarch64
@kernel
6.1.21-v8+
@release
PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"
@android

@cpuinfo
processor\t: 0
CPU part\t: 0xd08

processor\t: 1
CPU part\t: 0xd08

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
@model
Raspberry Pi 4 Model B Rev 1.4
@memory
MemTotal:        3884032 kB
MemFree:  100 kB
@cores
2
@clocks
0 cpuinfo_max_freq 1500000
0 scaling_cur_freq 600000
0 scaling_governor ondemand
1 cpuinfo_max_freq 1500000
1 scaling_cur_freq 1500000
1 scaling_governor ondemand
@temperatures
41868 cpu-thermal
@throttled
throttled=0x50000
@executable
/usr/bin/dash
@folder
Filesystem 1024-blocks Used Available Capacity Mounted on
/dev/root 30000000 9000000 20480000 31% /
@python
3.9.2
numpy 1.24.2
onnxruntime 1.16.3
numpy 1.26.4
"""
PHONE = """
@system
Linux
@machine
aarch64
@release

@android
/system/bin/getprop
13
SM8250-AC
qcom
Some phone
@cpuinfo
processor\t: 0
CPU part\t: 0xd05

processor\t: 7
CPU part\t: 0xd0d

Hardware\t: Qualcomm Technologies, Inc SM8250_AC
@cores
8
@clocks
0 cpuinfo_max_freq 1804800
3 cpuinfo_max_freq 1804800
4 cpuinfo_max_freq 2419200
6 cpuinfo_max_freq
7 cpuinfo_max_freq 3187200
@temperatures
-274000 unused
38 battery
51200 cpu-0
53100 cpu-0
@python
"""
MACBOOK = """
@system
Darwin
@machine
arm64
@kernel
23.1.0
@release
14.1
@cpuinfo
@clocks
* cpuinfo_max_freq
@folder
Filesystem 1024-blocks Used Available Capacity Mounted on
/dev/disk3s1 239362496 1 102400 1% /
@sysctl
machdep.cpu.brand_string: Apple M1
hw.logicalcpu: 8
hw.memsize: 17179869184
hw.perflevel0.logicalcpu: 4
hw.perflevel1.logicalcpu: 4
@python
3.11.5
"""


def test_a_board_is_read_from_proc_and_sys() -> None:
    assert parse_environment(
        RASPBERRY_PI, asked_at=1_700_000_000.4, answered_at=1_700_000_000.9
    ) == Environment(
        machine="aarch64",
        cpu="Raspberry Pi 4 Model B Rev 1.4",
        cores=2,
        clusters=(Cluster(2, 1500, "0xd08", (0, 1)),),
        memory_mib=3793,
        system="Linux",
        release="Debian GNU/Linux 11 (bullseye)",
        kernel="6.1.21-v8+",
        python="3.9.2",
        packages={"numpy": "1.26.4", "onnxruntime": "1.16.3"},
        governor="ondemand",
        clocks_mhz=(600, 1500),
        temperatures_c={"cpu-thermal": 41.868},
        throttled="0x50000",
        free_mib=20000,
        clock_skew_s=3,
    )


def test_a_phone_is_read_from_its_properties() -> None:
    phone = parse_environment(PHONE, asked_at=0, answered_at=0)
    assert (phone.system, phone.release, phone.cpu) == ("Android", "Android 13", "SM8250-AC")
    assert phone.abi == "android-arm64"
    assert phone.clusters == (
        Cluster(1, 1804, "0xd05", (0,)),
        Cluster(1, 1804, None, (3,)),
        Cluster(1, 2419, None, (4,)),
        Cluster(1, 3187, "0xd0d", (7,)),
    )
    # Some vendors give degrees, others thousandths; of one name the hottest counts.
    assert phone.temperatures_c == {"unused": -274.0, "battery": 38.0, "cpu-0": 53.1}
    assert (phone.python, phone.packages) == (None, {})


def test_a_mac_is_read_from_sysctl() -> None:
    assert parse_environment(MACBOOK, asked_at=0, answered_at=0) == Environment(
        machine="arm64",
        cpu="Apple M1",
        cores=8,
        clusters=(Cluster(4, None, "efficiency"), Cluster(4, None, "performance")),
        memory_mib=16384,
        system="Darwin",
        release="14.1",
        kernel="23.1.0",
        python="3.11.5",
        packages={},
        temperatures_c={},
        free_mib=100,
    )


@pytest.mark.parametrize(
    ("machine", "system", "abi"),
    [
        ("aarch64", "Linux", "aarch64"),
        ("armv7l", "Linux", "aarch32"),
        ("x86_64", "Linux", "x86-64"),
        ("aarch64", "Android", "android-arm64"),
        ("arm64", "Darwin", "macos-arm64"),
        ("x86_64", "Darwin", None),
        ("riscv64", "Linux", None),
        (None, None, None),
    ],
)
def test_the_abi_follows_from_machine_and_system(
    machine: str | None, system: str | None, abi: str | None
) -> None:
    assert Environment(machine=machine, system=system).abi == abi


@pytest.mark.parametrize(
    ("path", "is_emulated"),
    [
        ("/usr/libexec/qemu-binfmt/aarch64-binfmt-P", True),
        ("/usr/bin/qemu-aarch64-static", True),
        ("/usr/bin/dash", False),
        ("/home/qemu-lover/bin/sh", False),
    ],
)
def test_a_shell_that_another_program_executes_is_emulated(path: str, is_emulated: bool) -> None:
    assert parse_environment(f"\n@executable\n{path}\n", 0, 0).is_emulated is is_emulated


@pytest.mark.parametrize(
    ("now", "skew_s"), [(99, -1), (100, 0), (102, 0), (103, 0), (104, 1), (40, -60)]
)
def test_a_clock_is_off_by_what_the_time_of_asking_does_not_explain(now: int, skew_s: int) -> None:
    assert parse_environment(f"\n@time\n{now}\n", 100.9, 103.1).clock_skew_s == skew_s


def test_what_a_device_tells_cannot_steer_a_terminal() -> None:
    told = "@cpuinfo\nmodel name: A\x1b[31mB\n@system\nLinux\r\n@python\n3.11\x07\nnumpy \x1b]0;x\n"
    found = parse_environment(told, 0, 0)
    assert (found.cpu, found.system, found.python) == ("A?[31mB", "Linux?", "3.11?")
    assert found.packages == {"numpy": "?]0;x"}


NAMES = ["time", "machine", "cpuinfo", "memory", "cores", "clocks", "temperatures", "folder",
         "python", "android", "sysctl", "release"]  # fmt: skip
LINES = st.text(max_size=30) | st.sampled_from(
    ["9" * 5000, "²", "processor : ²", "processor : 0", "² scaling_cur_freq 1", "MemTotal: ² kB",
     "0 scaling_cur_freq ²", "0 cpuinfo_max_freq " + "9" * 400, "9" * 400 + " cpu", "hw.memsize: x",
     "a 1 1 " + "9" * 400 + " 5% /", "-1", "@time", "", "hw.perflevel0.logicalcpu: -4"]
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.lists(LINES, max_size=4)), max_size=8))
def test_whatever_a_device_prints_is_read(sections: list[tuple[str, list[str]]]) -> None:
    printed = "".join("\n".join([f"@{name}", *lines, ""]) for name, lines in sections)
    text = json.dumps(parse_environment(printed, 0, 0).as_json(), ensure_ascii=False)
    assert text.isprintable()


def test_what_a_device_does_not_tell_is_empty() -> None:
    environment = parse_environment("", asked_at=0, answered_at=0)
    assert not any(environment.as_json().values())


@pytest.mark.parametrize("key", ["model name", "Model", "Hardware"])
def test_the_cpu_is_named_by_whichever_key_the_kernel_uses(key: str) -> None:
    assert parse_environment(f"@cpuinfo\nprocessor : 0\n{key}\t: Chip 1\n", 0, 0).cpu == "Chip 1"


def test_one_command_asks_for_all_of_it() -> None:
    transport = FakeTransport(Device("board", "a board", "fake", {"python": "/opt/py thon"}))
    transport.answer(RASPBERRY_PI)
    assert read_environment(transport).machine == "aarch64"
    [command] = transport.commands
    assert command[:2] == ["sh", "-c"]
    assert command[3:] == ["bibench", "/opt/py thon", "."]


def test_a_device_without_a_working_sh_is_an_error() -> None:
    transport = FakeTransport(Device("board", "a board", "fake"))
    transport.answer(exit_code=1, stderr="This account is not available.\n")
    with pytest.raises(DeviceError, match="its sh cannot say what it is: 'This account"):
        read_environment(transport)


def test_this_machine_tells_what_it_is_but_not_whose_it_is() -> None:
    found = read_environment(LocalTransport(Device("local", "this machine", "local")))
    assert found.machine == platform.machine()
    assert found.python == platform.python_version()
    assert found.package("numpy")
    assert found.cores is not None
    assert sum(cluster.cores for cluster in found.clusters) >= found.cores
    assert found.free_mib is not None
    assert abs(found.clock_skew_s or 0) <= 2
    assert not found.is_emulated
    text = json.dumps(found.as_json())
    assert str(Path.home()) not in text
    if len(socket.gethostname()) > 5:
        assert socket.gethostname() not in text
    if len(getpass.getuser()) > 5:
        assert getpass.getuser() not in text


@pytest.mark.parametrize("shell", ["sh", "bash", "mksh"])  # mksh is Android's
def test_the_probe_runs_in_the_shells_of_boards_and_phones(shell: str) -> None:
    path = shutil.which(shell)
    assert path, f"this test needs {shell}; run: apt-get install {shell}"
    script = environment._PROBE.read_text(encoding="utf-8")
    done = subprocess.run(
        [path, "-c", script, "bibench", "/no/python", "/no/folder"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = parse_environment(done.stdout, 0, time.time())
    assert found.machine == platform.machine()
    assert found.python is None
    assert found.free_mib is not None
