from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import open_transport
from bibench_deploy.errors import DeviceError


def refusal(device: Device) -> str:
    with pytest.raises(DeviceError) as caught:
        open_transport(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_serial_that_adb_does_not_know_lists_the_known_ones(adbd, tmp_path: Path) -> None:
    told = refusal(adbd.device(tmp_path, serial="0123456789ABCDEF"))
    assert "adb knows no device 0123456789ABCDEF (it knows: " in told
    assert adbd.serial in told


def test_a_device_that_adb_cannot_use_says_what_to_do(
    adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import adbutils

    [entry] = [one for one in adbutils.AdbClient().list() if one.serial == adbd.serial]
    monkeypatch.setattr(entry, "state", "unauthorized")
    monkeypatch.setattr(adbutils.AdbClient, "list", lambda self: [entry])
    told = refusal(adbd.device(tmp_path))
    assert "is unauthorized; allow this computer on its screen" in told


@pytest.mark.parametrize("serial", [None, "", 4])
def test_a_connection_without_a_serial_says_how_to_give_one(adbd, serial: object) -> None:
    told = refusal(Device("board", "a board", "adb", {"serial": serial}))
    assert "names no serial; run: bibench devices add board --adb SERIAL" in told


def test_the_daemon_of_the_tests_is_one_that_adb_itself_can_use(
    adbd, adb_server: str, tmp_path: Path
) -> None:
    """So that what passes against it says something of a phone."""

    def adb(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [adb_server, "-s", adbd.serial, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    done = adb("shell", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    assert adb("push", str(tmp_path / "file"), str(tmp_path / "there")).returncode == 0
    assert adb("pull", str(tmp_path / "there"), str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_device_that_tells_no_exit_codes_is_refused(make_adb, tmp_path: Path) -> None:
    old = make_adb("cmd")
    assert "it needs Android 7 or newer" in refusal(old.device(tmp_path))
