"""One host at a time holds a board, and nothing keeps it after its host is gone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import _lease, _remote, open_transport
from bibench_deploy.errors import DeviceError


@pytest.fixture
def board(sshd, tmp_path: Path) -> Device:
    return sshd.device(tmp_path / "work")


@pytest.fixture
def lease(tmp_path: Path) -> Path:
    return tmp_path / "work" / "lease"


def this_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def uptime() -> int:
    return int(float(Path("/proc/uptime").read_text().split()[0]))


def leave_behind(lease: Path, beat: str) -> None:
    """A lease whose holder is gone."""
    lease.mkdir(parents=True)
    (lease / "owner").write_text("0123 other-host 77\n")
    (lease / "beat").write_text(f"{beat}\n")


def test_a_second_host_is_told_who_holds_the_board(board: Device, lease: Path) -> None:
    with open_transport(board) as first, open_transport(board) as second:
        with first.hold():
            match = r"in use by bibench on \S+ \(process \d+, last"
            with pytest.raises(DeviceError, match=match), second.hold():
                pytest.fail("two holders")
            with pytest.raises(DeviceError, match=match):
                second.clean()
            assert lease.is_dir()
            assert first.run(["true"], timeout_s=30).exit_code == 0
        assert not lease.exists()
        with second.hold():
            assert lease.is_dir()


def test_of_many_hosts_at_once_exactly_one_holds_the_board(board: Device) -> None:
    held: list[int] = []
    refused: list[str] = []
    all_there = threading.Barrier(4)
    done = threading.Event()

    def host(number: int) -> None:
        with open_transport(board) as transport:
            all_there.wait(60)
            try:
                with transport.hold():
                    held.append(number)
                    done.wait(60)
            except DeviceError as error:
                refused.append(str(error))
            if len(refused) == 3:
                done.set()

    hosts = [threading.Thread(target=host, args=(number,)) for number in range(4)]
    for one in hosts:
        one.start()
    for one in hosts:
        one.join(90)
    assert (len(held), len(refused)) == (1, 3)


def test_a_cut_link_gives_the_lease_back(sshd, cable, tmp_path: Path, lease: Path) -> None:
    config = sshd.config("cable", cable.port)
    board = sshd.device(tmp_path / "work", config, port=cable.port)
    with open_transport(board) as transport, transport.hold():
        assert lease.is_dir()
        cable.cut()
        deadline = time.monotonic() + 20
        while lease.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not lease.exists()


@pytest.mark.parametrize("why", ["silent", "restarted", "no sign of life"])
def test_a_lease_that_was_left_behind_is_taken_over(
    board: Device, lease: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(_lease, "EXPIRY_S", 1)
    monkeypatch.setattr(_lease, "WATCH_S", 0.2)
    silent = f"{this_boot()} {max(0, uptime() - 10)}"
    leave_behind(lease, {"silent": silent, "restarted": "another-boot 5"}.get(why, ""))
    if why == "no sign of life":  # it ended between making the folder and its first sign
        (lease / "beat").unlink()
        (lease / "owner").unlink()
    with open_transport(board) as transport, transport.hold():
        assert "other-host" not in (lease / "owner").read_text()
    assert not lease.exists()
    assert list(lease.parent.glob("stale*")) == []


def test_a_holder_that_gives_signs_of_life_is_left_alone_however_long_it_takes(
    board: Device, lease: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lease, "EXPIRY_S", 1)
    monkeypatch.setattr(_lease, "HEARTBEAT_S", 0.2)
    with open_transport(board) as first, open_transport(board) as second, first.hold():
        time.sleep(2.5)
        with pytest.raises(DeviceError, match="in use by"), second.hold():
            pytest.fail("two holders")


def test_who_was_silent_too_long_notices_that_the_lease_is_another_hosts(
    board: Device, lease: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lease, "HEARTBEAT_S", 0.2)
    with open_transport(board) as transport, transport.hold():
        (lease / "owner").write_text("0123 other-host 77\n")
        time.sleep(1)
        with pytest.raises(DeviceError, match="another host took its lease"):
            transport.run(["true"], timeout_s=30)
    assert "other-host" in (lease / "owner").read_text()


@pytest.mark.parametrize("is_alive", [True, False])
def test_a_clock_that_went_backwards_keeps_a_holder_only_while_it_lives(
    board: Device, lease: Path, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    """Where a system does not count seconds since its start, as macOS."""
    monkeypatch.setattr(_lease, "_PROC", "/no/proc")
    monkeypatch.setattr(_lease, "WATCH_S", 0.5)
    future = int(time.time()) + 3600
    leave_behind(lease, f"none {future}")
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.05):
            if lease.exists():
                (lease / "beat").write_text(f"none {future + int(time.monotonic() * 20) % 1000}\n")

    holder = threading.Thread(target=live)
    if is_alive:
        holder.start()
    try:
        with open_transport(board) as transport:
            if is_alive:
                match = r"other-host \(process 77, alive\)"
                with pytest.raises(DeviceError, match=match), transport.hold():
                    pytest.fail("two holders")
            else:
                with transport.hold():
                    assert "other-host" not in (lease / "owner").read_text()
    finally:
        stop.set()
        if is_alive:
            holder.join()


def test_a_work_folder_that_cannot_be_made_is_an_error(sshd, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with open_transport(sshd.device(tmp_path / "file" / "work")) as transport:
        match = "name another one as work_folder"
        with pytest.raises(DeviceError, match=match), transport.hold():
            pytest.fail("held")
        with pytest.raises(DeviceError, match="name another one as work_folder"):
            transport.push(tmp_path / "file")


@pytest.mark.parametrize("greeting", ["Welcome to the board", "\x1b[31m", "x" * 100_000])
def test_a_login_that_prints_by_itself_is_quoted(
    board: Device, lease: Path, monkeypatch: pytest.MonkeyPatch, greeting: str
) -> None:
    script = f"printf '%s\\n' '{greeting}'\n{_lease._SCRIPT}"
    monkeypatch.setattr(_lease, "_SCRIPT", script)
    with (
        open_transport(board) as transport,
        pytest.raises(DeviceError, match=r"its login prints '.*keep its start-up files") as caught,
        transport.hold(),
    ):
        pytest.fail("held")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    deadline = time.monotonic() + 20
    while lease.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lease.exists()


@pytest.mark.parametrize("printed", ["", "gone\n", "1 2 3\n", "9" * 5000 + " 0\n"])
def test_a_clean_up_that_prints_something_else_is_one_error(
    board: Device, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    monkeypatch.setattr(_remote, "_CLEAN", f"printf %s '{printed}'")
    with (
        open_transport(board) as transport,
        pytest.raises(DeviceError, match=r"its sh cannot clean .*work: '"),
    ):
        transport.clean()
