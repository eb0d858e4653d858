from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bibench_deploy.devices.runtimes import Program, add_program, find_program, missing_program
from bibench_deploy.errors import DeviceError, UnknownNameError

PROGRAM = Program("engine", {"aarch64": "the release", "macos-arm64": "the release"})
AARCH64 = b"\x7fELF\x02" + bytes(13) + b"\xb7\x00"
X86 = b"\x7fELF\x02" + bytes(13) + b"\x3e\x00"


def write(folder: Path, content: bytes) -> Path:
    (folder / "program").write_bytes(content)
    return folder / "program"


def test_a_program_is_kept_under_its_hash_and_may_be_executed(tmp_path: Path) -> None:
    assert find_program(PROGRAM, "aarch64") is None
    kept = add_program(PROGRAM, "aarch64", write(tmp_path, AARCH64))
    assert kept.sha256 == hashlib.sha256(AARCH64).hexdigest()
    assert kept.path.read_bytes() == AARCH64
    assert kept.path.stat().st_mode & 0o111
    assert find_program(PROGRAM, "aarch64") == kept


def test_the_program_that_was_added_last_is_the_one_used_and_older_ones_stay(
    tmp_path: Path,
) -> None:
    first = add_program(PROGRAM, "aarch64", write(tmp_path, AARCH64))
    second = add_program(PROGRAM, "aarch64", write(tmp_path, AARCH64 + b"newer"))
    assert find_program(PROGRAM, "aarch64") == second
    assert first.path.is_file()
    assert not list(first.path.parent.glob(".*"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (X86, "a program for x86-64, not for aarch64"),
        (b"\x7fELF\x02" + bytes(13) + b"\x34\x12", "a program for another instruction set"),
        (b"<html>404</html>", "no program for Linux or Android"),
        (b"", "no program for Linux or Android"),
    ],
)
def test_a_program_for_something_else_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        add_program(PROGRAM, "aarch64", write(tmp_path, content))
    assert find_program(PROGRAM, "aarch64") is None


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="none: cannot be kept: No such file"):
        add_program(PROGRAM, "aarch64", tmp_path / "none")


def test_an_abi_without_builds_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r'unknown ABI "aarch46".*did you mean "aarch64"'):
        add_program(PROGRAM, "aarch46", write(tmp_path, AARCH64))


def test_what_is_missing_is_said_with_the_command_that_adds_it() -> None:
    assert missing_program(PROGRAM, "aarch64").endswith(
        "run: bibench runtimes add engine --abi aarch64 FILE"
    )
    assert missing_program(PROGRAM, "x86-64") == "there is no build of engine for x86-64"
    assert missing_program(PROGRAM, None).endswith("for an unknown instruction set")


def test_a_note_of_the_current_program_that_names_none_counts_as_none(tmp_path: Path) -> None:
    kept = add_program(PROGRAM, "aarch64", write(tmp_path, AARCH64))
    kept.path.unlink()
    assert find_program(PROGRAM, "aarch64") is None
