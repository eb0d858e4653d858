"""What ssh and adb share: pushing by content, and what happens when something breaks."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import _lease, _remote, _shell, open_transport
from bibench_deploy.devices.transports._remote import RemoteTransport
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import DeviceError

SHELLS = ["sh", "bash", "mksh"]  # Debian's, macOS's, Android's
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20) | (
    st.sampled_from(["a b", "'", '"', ";", "$(touch x)", "`id`", "\n", "\\", "*", "-n", "~", "!"])
)
# Runs until it is killed, and so does its child; says where both are.
TREE = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen(['sleep', '600'])\n"
    "open(sys.argv[1] + '.new', 'w').write(f'{os.getpid()} {child.pid}')\n"
    "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
    "time.sleep(600)\n"
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work folder"


@pytest.fixture
def board(sshd, work: Path) -> Device:
    return sshd.device(work, python=sys.executable)


@pytest.fixture(params=["ssh", "adb"])
def remote(request: pytest.FixtureRequest, work: Path) -> Iterator[RemoteTransport]:
    server = request.getfixturevalue({"ssh": "sshd", "adb": "adbd"}[request.param])
    with open_transport(server.device(work, python=sys.executable)) as transport:
        assert isinstance(transport, RemoteTransport)
        yield transport


@pytest.fixture
def through_cable(sshd, cable, work: Path) -> Iterator[RemoteTransport]:
    """A board behind a cable that can be cut."""
    config = sshd.config("cable", cable.port)
    with open_transport(sshd.device(work, config, port=cable.port)) as transport:
        assert isinstance(transport, RemoteTransport)
        yield transport


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.tflite").write_bytes(os.urandom(3_000_000))
    return tmp_path / "model.tflite"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.02)


def test_a_file_lies_under_its_hash_and_may_be_executed(
    remote: RemoteTransport, work: Path, model: Path
) -> None:
    assert remote.push(model) == f"{work}/{sha256(model)}"
    assert [entry.name for entry in work.iterdir()] == [sha256(model)]
    assert (work / sha256(model)).stat().st_mode & 0o777 == 0o500
    assert work.stat().st_mode & 0o777 == 0o700


def test_content_that_is_there_is_not_sent_again(
    remote: RemoteTransport, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = remote.push(model)
    shutil.copy(model, tmp_path / "same under another name")
    monkeypatch.setattr(remote, "upload", lambda *_: pytest.fail("sent again"))
    assert remote.push(model) == path
    assert remote.push(tmp_path / "same under another name") == path


def test_content_that_was_damaged_on_the_board_is_sent_again(
    remote: RemoteTransport, work: Path, model: Path
) -> None:
    there = Path(remote.push(model))
    there.chmod(0o700)
    there.write_bytes(b"damaged")
    remote.push(model)
    assert there.read_bytes() == model.read_bytes()


def test_an_upload_that_arrives_damaged_is_an_error_and_leaves_nothing(
    remote: RemoteTransport, work: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(file: Path, path: str) -> None:
        Path(path).write_bytes(b"something else")

    monkeypatch.setattr(remote, "upload", damaged)
    with pytest.raises(DeviceError, match=r"model\.tflite arrived with another content"):
        remote.push(model)
    assert list(work.iterdir()) == []


def test_clean_removes_what_was_pushed_and_nothing_else(
    remote: RemoteTransport, work: Path, model: Path
) -> None:
    remote.push(model)
    (work / "part.00ff").write_bytes(b"half")
    (work / "notes of mine").touch()
    (work / "abc").touch()
    assert remote.clean() == (2, 3_000_004)
    assert sorted(entry.name for entry in work.iterdir()) == ["abc", "notes of mine"]
    assert remote.clean() == (0, 0)


def test_what_a_command_leaves_running_is_killed(remote: RemoteTransport, tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'], stdout=-3, stderr=-3)\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
    )
    pid = tmp_path / "pid"
    assert remote.run([remote.python, "-c", program, str(pid)], timeout_s=30).exit_code == 0
    wait_until(lambda: not is_running(int(pid.read_text())))


def test_a_hanging_command_is_killed_with_its_children(
    remote: RemoteTransport, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(DeviceError, match="not finished after 3 s"):
        remote.run([remote.python, "-c", TREE, str(pids)], timeout_s=3)
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))


def test_a_command_that_ignores_the_request_to_end_is_killed(
    remote: RemoteTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote, "GRACE_S", 0.3)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    with pytest.raises(DeviceError, match="not finished after 1 s"):
        remote.run([remote.python, "-c", program], timeout_s=1)


def test_a_device_without_the_program_timeout_has_its_commands_limited_all_the_same(
    board: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS."""
    monkeypatch.setattr(
        _remote, "_RUN", _remote._RUN.replace("command -v timeout", "command -v no-timeout")
    )
    with open_transport(board) as transport:
        assert transport.run(["printf", "%s", "a  b"], timeout_s=30).stdout == "a  b"
        with pytest.raises(DeviceError, match="cannot start no-program: No such file"):
            transport.run(["no-program"], timeout_s=30)
        pids = tmp_path / "pids"
        with pytest.raises(DeviceError, match="not finished"):
            transport.run([transport.python, "-c", TREE, str(pids)], timeout_s=2)
        for process in pids.read_text().split():
            wait_until(lambda process=process: not is_running(int(process)))


def test_a_link_cut_in_a_run_is_one_error_and_leaves_no_orphan(
    through_cable: RemoteTransport, cable, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"

    def cut() -> None:
        wait_until(pids.exists)
        cable.cut()

    threading.Thread(target=cut).start()
    with pytest.raises(DeviceError, match="device board: the link was lost") as caught:
        through_cable.run([sys.executable, "-c", TREE, str(pids)], timeout_s=600)
    assert "\n" not in str(caught.value)
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))


def test_a_link_cut_in_a_run_over_adb_leaves_no_orphan(adbd, work: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def cut() -> None:
        wait_until(pids.exists)
        adbd.daemon.cut()

    with open_transport(adbd.device(work)) as transport:
        threading.Thread(target=cut).start()
        with pytest.raises(DeviceError, match="device board: the link was lost"):
            transport.run([sys.executable, "-c", TREE, str(pids)], timeout_s=600)
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))
    adbd.reconnect()


def test_a_link_cut_in_a_push_is_one_error_and_no_half_file_has_a_name(
    through_cable: RemoteTransport, cable, sshd, work: Path, model: Path
) -> None:
    cable.cut_after = cable.sent + 1_000_000
    with pytest.raises(DeviceError, match="device board: the link was lost") as caught:
        through_cable.push(model)
    assert "\n" not in str(caught.value)
    assert [entry.name[:5] for entry in work.iterdir()] == ["part."]
    with open_transport(sshd.device(work)) as again:
        assert Path(again.push(model)).read_bytes() == model.read_bytes()
        assert again.clean()[0] == 2


def test_a_link_cut_in_a_push_over_adb_is_one_error(make_adb, work: Path, model: Path) -> None:
    phone = make_adb("shell_v2,cmd")
    device = phone.device(work)
    with open_transport(device) as transport:
        phone.daemon.cut_after = phone.daemon.received + 1_000_000
        with pytest.raises(DeviceError, match="device board: the link was lost") as caught:
            transport.push(model)
    assert "\n" not in str(caught.value)
    phone.daemon.cut_after = float("inf")
    phone.reconnect()
    with open_transport(device) as again:
        assert Path(again.push(model)).read_bytes() == model.read_bytes()
        assert again.clean()[0] == 2


def test_a_full_disk_is_said_before_anything_is_sent(
    sshd, adbd, small_disk: Path, model: Path
) -> None:
    for server in (sshd, adbd):
        with (
            open_transport(server.device(small_disk / "work")) as transport,
            pytest.raises(DeviceError, match=r"no room for 3\.0 MB in .*, 1\.0 MB are free"),
        ):
            transport.push(model)
        assert list((small_disk / "work").iterdir()) == []


def test_a_disk_that_fills_up_in_a_push_is_named_and_left_clean(
    sshd, adbd, small_disk: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_room, checks = RemoteTransport._check_room, []

    def as_if_there_were_room(*facts: Any) -> None:
        checks.append(facts)
        if len(checks) % 2 == 0:  # the first is before the upload
            check_room(*facts)

    monkeypatch.setattr(RemoteTransport, "_check_room", as_if_there_were_room)
    for server in (sshd, adbd):
        with (
            open_transport(server.device(small_disk / "work")) as transport,
            pytest.raises(DeviceError, match=r"no room for 3\.0 MB in"),
        ):
            transport.push(model)
        assert list((small_disk / "work").iterdir()) == []
    assert len(checks) == 4


@pytest.mark.parametrize("what", ["bytes", "files"])
def test_a_disk_without_any_room_is_said_and_can_still_be_cleaned(
    sshd, small_disk: Path, model: Path, what: str
) -> None:
    work = small_disk / "work"
    pushed = small_disk.parent / "small"
    pushed.write_bytes(b"pushed before")
    with open_transport(sshd.device(work)) as transport:
        transport.push(pushed)
        if what == "bytes":
            with (small_disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
                while fill.write(bytes(4096)):
                    pass
        else:
            subprocess.run(["mount", "-o", "remount,nr_inodes=4", small_disk], check=True)
        match = "device board: no room in its work folder .*: bibench devices clean board"
        with pytest.raises(DeviceError, match=match), transport.hold():
            pytest.fail("held")
        assert len(list(work.iterdir())) == 1  # and no lease
        assert transport.clean() == (1, 13)
        assert list(work.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_files_that_a_restart_took_away_are_missed(
    remote: RemoteTransport, work: Path, model: Path
) -> None:
    path = remote.push(model)
    remote.check_pushed([path])
    shutil.rmtree(work)
    with pytest.raises(DeviceError, match="it was restarted or cleaned meanwhile; run this again"):
        remote.check_pushed([path])


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_program_of_another_instruction_set_is_called_that(
    sshd, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """Whatever sh the board has: it gets such a program from the C library, as if a script."""
    foreign = tmp_path / "foreign"
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\x34\x12" + bytes(44)
    foreign.write_bytes(header + bytes(range(256)) * 8)
    with open_transport(sshd.device(work)) as transport:
        path = transport.push(foreign)
        with pytest.raises(DeviceError, match=r"cannot start .*: Exec format error"):
            transport.run([path, "--graph=x"], timeout_s=30)
    # Only dash and bash are the sh of a glibc system: Android's C library has no such step.
    done = subprocess.run([shell, path], capture_output=True, check=False)
    result = CommandResult(done.returncode, "", done.stderr.decode("utf-8", "replace"))
    told = _remote._why_not_started(path, result, is_pushed=True)
    assert told is not None
    assert told.startswith("Exec format error")


def test_a_program_that_misses_a_library_names_it(sshd, work: Path, tmp_path: Path) -> None:
    program = Path(shutil.which("true") or "/bin/true").resolve().read_bytes()
    assert b"libc.so.6\0" in program
    (tmp_path / "program").write_bytes(program.replace(b"libc.so.6\0", b"libz.so.X\0"))
    with open_transport(sshd.device(work)) as transport:
        result = transport.run([transport.push(tmp_path / "program")], timeout_s=30)
    assert result.exit_code == 127
    assert "libz.so.X" in result.stderr


def test_a_program_of_a_newer_system_is_not_called_that(sshd, work: Path, tmp_path: Path) -> None:
    """Nor a script of ours whose own command is missing: both say "not found"."""
    told = "/board/program: /lib/libc.so.6: version `GLIBC_2.99' not found (required by …)\n"
    result = CommandResult(1, "", told)
    assert _remote._why_not_started("/board/program", result, is_pushed=True) is None
    (tmp_path / "script").write_text("#!/bin/sh\nno-such-command\n")
    with open_transport(sshd.device(work)) as transport:
        result = transport.run([transport.push(tmp_path / "script")], timeout_s=30)
    assert result.exit_code == 127


def test_a_command_that_prints_without_end_is_ended(
    remote: RemoteTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote, "MAX_OUTPUT_BYTES", 2**20)
    with pytest.raises(DeviceError, match="printed more than 1 MiB, so it was ended"):
        remote.run(["yes"], timeout_s=600)


def test_a_link_cut_in_a_pull_leaves_no_half_file(
    through_cable: RemoteTransport, cable, tmp_path: Path, model: Path
) -> None:
    path = through_cable.push(model)
    cable.cut()
    (tmp_path / "back").write_text("what was there")
    with pytest.raises(DeviceError, match="the link was lost"):
        through_cable.pull(path, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "what was there"
    assert list(tmp_path.glob(".back*")) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_do_the_same_in_every_sh(shell: str, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        with subprocess.Popen(
            [shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin
            process.stdin.write(_shell.script(_remote._RUN, arguments, limit=5, grace=1))
            process.stdin.flush()  # and not closed, as a link that is there
            code = process.wait(30)
            assert process.stdout
            assert process.stderr
            return subprocess.CompletedProcess(
                arguments, code, process.stdout.read(), process.stderr.read()
            )

    assert run("printf", "%s", "a  b").stdout == b"a  b"
    done = run("sh", "-c", "echo told >&2; exit 7")
    assert (done.returncode, done.stderr) == (7, b"told\n")
    assert run("sh", "-c", "kill -ILL $$").returncode == 128 + 4
    pids = tmp_path / "pids"
    with subprocess.Popen([shell], stdin=subprocess.PIPE) as process:
        assert process.stdin
        tree = [sys.executable, "-c", TREE, str(pids)]
        process.stdin.write(_shell.script(_remote._RUN, tree, limit=600, grace=1))
        process.stdin.flush()
        wait_until(pids.exists)
        process.stdin.close()  # the link is cut
        process.wait(30)
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not is_running(int(pid)))
    settings = {"folder": str(tmp_path / "w"), "me": "01 us 1", "expiry": 60, "watch": 1}
    script = _shell.script(_lease._SCRIPT, [], proc="/proc", **settings)
    with subprocess.Popen([shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(script)
        process.stdin.flush()
        assert process.stdout.readline() == b"held\n"
        second = subprocess.run([shell], input=script, capture_output=True, check=False)
        assert second.stdout.startswith(b"busy ")
        assert second.stdout.endswith(b" 01 us 1\n")
    assert not (tmp_path / "w" / "lease").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_that_is_told_to_end_keeps_nobody_waiting(shell: str) -> None:
    """What kills it later, if it must, holds none of its outputs."""
    with subprocess.Popen(
        [shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        script = _shell.script(
            _remote._RUN, ["sh", "-c", "echo on; sleep 600"], limit=600, grace=60
        )
        process.stdin.write(script)
        process.stdin.flush()
        assert process.stdout.readline() == b"on\n"
        process.communicate(timeout=30)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_host_that_is_gone_before_it_hears_that_it_holds_the_lease_leaves_none(
    shell: str, tmp_path: Path
) -> None:
    me: dict[str, str | float] = {"folder": str(tmp_path / "w"), "me": "01 us 1", "expiry": 60}
    script = _shell.script(_lease._SCRIPT, [], proc="/proc", watch=1, **me)
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen([shell], stdin=subprocess.PIPE, stdout=writing) as process:
        os.close(writing)
        process.communicate(script, timeout=30)
    assert (tmp_path / "w").is_dir()
    assert not (tmp_path / "w" / "lease").exists()


def test_ctrl_c_in_a_run_leaves_no_orphan(sshd, work: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    device = sshd.device(work)
    program = (
        "import sys\n"
        "from bibench_deploy.devices.registry import Device\n"
        "from bibench_deploy.devices.transports import open_transport\n"
        f"device = Device('board', 'a board', 'ssh', {dict(device.facts)!r})\n"
        "with open_transport(device) as transport, transport.hold():\n"
        "    transport.run([sys.executable, '-c', *sys.argv[1:]], timeout_s=600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, TREE, str(pids)], stderr=subprocess.PIPE, text=True
    ) as ours:
        wait_until(pids.exists)
        os.kill(ours.pid, signal.SIGINT)
        _, stderr = ours.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    for process in pids.read_text().split():
        wait_until(lambda process=process: not is_running(int(process)))
    wait_until(lambda: not (work / "lease").exists())


def test_ctrl_c_in_a_push_leaves_nothing(sshd, work: Path, model: Path) -> None:
    with open_transport(sshd.device(work)) as transport:
        assert isinstance(transport, RemoteTransport)
        upload = transport.upload

        def interrupted(file: Path, path: str) -> None:
            upload(file, path)
            raise KeyboardInterrupt

        transport.upload = interrupted
        with pytest.raises(KeyboardInterrupt):
            transport.push(model)
        assert list(work.iterdir()) == []


@settings(max_examples=50, deadline=None)
@given(folder=TEXT, arguments=st.lists(TEXT, max_size=4), shell=st.sampled_from(SHELLS))
def test_settings_and_arguments_of_a_script_are_never_read_by_its_shell(
    folder: str, arguments: list[str], shell: str
) -> None:
    """Work folders and all that is passed to scripts, in every sh that a board may have."""
    script = 'printf "[%s]" "$folder" "$@"; exit 0\n'
    done = subprocess.run(
        [shell], input=_shell.script(script, arguments, folder=folder), capture_output=True,
        check=False,
    )  # fmt: skip
    expected = "".join(f"[{text}]" for text in [folder, *arguments])
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected, b"")


def test_an_argument_with_a_nul_byte_is_a_wrong_call(remote: RemoteTransport) -> None:
    with pytest.raises(ValueError, match="NUL"):
        remote.run(["echo", "a\0b"], timeout_s=30)


def test_bytes_that_are_no_utf_8_are_still_read(remote: RemoteTransport) -> None:
    assert remote.run(["printf", r"caf\351"], timeout_s=30).stdout == "caf\ufffd"
