"""Programs for devices that bibench does not come with, kept on this machine by their hash.

`bibench runtimes add lce --abi aarch64 PATH` copies a file to
<data folder of the user>/bibench/runtimes/<name>/<abi>/<sha256>; the one that was added last
is the one used, and older ones stay until they are removed by hand, because results name them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bibench_deploy.errors import DeviceError, UnknownNameError

# As `Environment.abi` names them: instruction set, and the system where it is not Linux.
ABIS = ("aarch64", "aarch32", "android-arm64", "macos-arm64", "x86-64")
_CURRENT = "current"
# e_machine of an ELF header, and its class: 1 for 32 bits, 2 for 64 bits (System V ABI).
_ELF_MACHINES = {
    "aarch64": (2, 183), "aarch32": (1, 40), "android-arm64": (2, 183), "x86-64": (2, 62),
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A program that a runner needs on the device, one build for each ABI.

    Attributes:
        name: as after `bibench runtimes add`.
        sources: ABI → where such a build is to be had, one phrase. These ABIs are all that it
            can be added for.
        build: makes one for an ABI in a folder, where bibench can: it is added without a file.
    """

    name: str
    sources: Mapping[str, str]
    build: Callable[[str, Path], Path] | None = None


@dataclass(frozen=True)
class KeptProgram:
    """A program that was added.

    Attributes:
        name: of the program.
        abi: that it is for.
        path: the file, whose name is its sha256.
    """

    name: str
    abi: str
    path: Path

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return self.path.name


def find_program(program: Program, abi: str | None) -> KeptProgram | None:
    """Give the build of a program that was added last for an ABI; None where there is none."""
    if abi is None:
        return None
    try:
        sha256 = (_folder(program.name, abi) / _CURRENT).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    path = _folder(program.name, abi) / sha256
    return KeptProgram(program.name, abi, path) if path.is_file() else None


def missing_program(program: Program, abi: str | None) -> str:
    """Say that no build of a program is kept for an ABI, and how to add one."""
    if abi not in program.sources:
        return f"there is no build of {program.name} for {abi or 'an unknown instruction set'}"
    file = " FILE" if program.build is None else ""
    return f"no build for {abi} is kept; run: bibench runtimes add {program.name} --abi {abi}{file}"


def add_program(program: Program, abi: str, file: Path) -> KeptProgram:
    """Keep a copy of a program's build; from now on it is the one used for its ABI.

    Raises:
        UnknownNameError: the program has no builds for this ABI.
        DeviceError: the file cannot be read, or is for another instruction set.
    """
    from bibench_deploy.artifact import sha256_of, write_text_atomically

    if abi not in program.sources:
        raise UnknownNameError("ABI", abi, tuple(program.sources))
    try:
        with file.open("rb") as stream:
            header = stream.read(20)
        _check_header(file, header, abi)
        path = _folder(program.name, abi) / sha256_of(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            shutil.copyfile(file, scratch)
            scratch.chmod(0o755)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise DeviceError(f"{file}: cannot be kept: {error.strerror}") from error
    write_text_atomically(path.with_name(_CURRENT), f"{path.name}\n")
    return KeptProgram(program.name, abi, path)


def _folder(name: str, abi: str) -> Path:
    from platformdirs import user_data_path

    return user_data_path("bibench") / "runtimes" / name / abi


def _check_header(file: Path, header: bytes, abi: str) -> None:
    expected = _ELF_MACHINES.get(abi)
    if expected is None:  # macOS has another format, and several instruction sets in one file
        return
    if header[:4] != b"\x7fELF":
        raise DeviceError(f"{file}: no program for Linux or Android (no ELF file); choose another")
    found = (header[4], int.from_bytes(header[18:20], "little"))
    if found != expected:
        names = [name for name, machine in _ELF_MACHINES.items() if machine == found]
        what = f"for {' or '.join(names)}" if names else "for another instruction set"
        raise DeviceError(f"{file}: a program {what}, not for {abi}")
