from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports.local import LocalTransport
from bibench_deploy.errors import DeviceError

# Starts a child that would outlive everything, says who both are, then does as told.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(float(sys.argv[2]))
os._exit(0)
"""


@pytest.fixture
def transport() -> LocalTransport:
    return LocalTransport(Device("local", "this machine", "local"))


def is_running(process: int) -> bool:
    if sys.platform == "linux":
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
    else:
        listing = ["ps", "-o", "stat=", "-p", str(process)]
        state = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
    # A zombie no longer runs: it waits for whoever inherited it to notice.
    return state != "" and not state.startswith("Z")


def wait_until(is_true: object) -> None:
    assert callable(is_true)
    for _ in range(1000):
        if is_true():
            return
        time.sleep(0.02)
    pytest.fail("waited 20 s in vain")


def test_a_timeout_ends_the_children_of_the_command_too(
    transport: LocalTransport, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(DeviceError, match="not finished"):
        transport.run([sys.executable, "-c", PARENT, str(pids), "600"], timeout_s=3)
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))


def test_a_command_that_ends_leaves_no_child_behind(
    transport: LocalTransport, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    result = transport.run([sys.executable, "-c", PARENT, str(pids), "0"], timeout_s=60)
    assert result.exit_code == 0
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))


def test_ctrl_c_ends_the_command_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = (
        "import sys\n"
        "from bibench_deploy.devices.registry import Device\n"
        "from bibench_deploy.devices.transports.local import LocalTransport\n"
        "transport = LocalTransport(Device('local', 'this machine', 'local'))\n"
        "transport.run([sys.executable, '-c', *sys.argv[1:], '600'], timeout_s=600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, PARENT, str(pids)], stderr=subprocess.PIPE, text=True
    ) as ours:
        wait_until(pids.exists)
        os.kill(ours.pid, signal.SIGINT)
        _, stderr = ours.communicate(timeout=20)
    assert "KeyboardInterrupt" in stderr
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))


def test_a_command_ended_by_a_signal_has_a_negative_exit_code(transport: LocalTransport) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert transport.run([sys.executable, "-c", program], timeout_s=30).exit_code == -11


def test_a_program_that_does_not_exist_is_a_device_error(transport: LocalTransport) -> None:
    with pytest.raises(DeviceError, match="cannot start no-such-program: No such file"):
        transport.run(["no-such-program"], timeout_s=1)


def test_output_that_is_no_utf_8_is_still_read(transport: LocalTransport) -> None:
    program = r"import sys; sys.stdout.buffer.write(b'caf\xe9')"
    result = transport.run([sys.executable, "-c", program], timeout_s=30)
    assert result.stdout == "caf\ufffd"


def test_more_output_than_a_pipe_holds_is_read_whole(transport: LocalTransport) -> None:
    program = "print('x' * 1_000_000)"
    result = transport.run([sys.executable, "-c", program], timeout_s=30)
    assert len(result.stdout) == 1_000_001


def test_the_python_is_ours_unless_the_device_names_another(transport: LocalTransport) -> None:
    assert transport.python == sys.executable
    other = Device("local", "this machine", "local", {"python": "/opt/python3"})
    assert LocalTransport(other).python == "/opt/python3"
