"""Build the library, for this machine or for a board, by a C++ compiler that is there.

`python -m bibench_deploy.targets.native` builds it for this machine, beside this file; pip does the
same when it installs bibench. So this imports nothing of bibench, which may not be there yet.

Boards need a cross compiler: Debian's g++-aarch64-linux-gnu, or zig's from PyPI (the extra
`cross`), which needs no root. What zig makes runs from glibc 2.28 on, what Debian's makes from
about the glibc of that release on. All take the compiler's own libraries into the file.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

NAME = "libbibench_native.so"
KERNELS = Path(__file__).with_name("kernels")

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-pthread", "-Wall", "-Wextra", "-fvisibility=hidden",
          "-fvisibility-inlines-hidden", "-ffunction-sections", "-fdata-sections")  # fmt: skip
# Files of an instruction set that not every processor has: who has it, and its flags.
_SETS = {
    "avx2.cpp": ("x86-64", ("-mavx2", "-mfma")),
    "avx512.cpp": (
        "x86-64",
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vpopcntdq", "-mfma",
         "-mprefer-vector-width=512"),
    ),
    "neon.cpp": ("aarch64", ()),
}  # fmt: skip
# GCC's own header for AVX-512 sets them off: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
_FALSE_ALARMS = ("-Wno-uninitialized", "-Wno-maybe-uninitialized")
_SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_ABIS = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "aarch64", "arm64": "aarch64"}
_TIMEOUT_S = 600


class BuildError(Exception):
    """There is no compiler for a machine, or it failed; one line says what to do."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: with what chooses the machine that it builds for.
        abi: that it builds for, `x86-64` or `aarch64`.
    """

    command: tuple[str, ...]
    abi: str

    @property
    def is_zig(self) -> bool:
        """Whether it is zig's, which knows some flags of linkers by default and not by name."""
        return "ziglang" in self.command


def own_abi() -> str:
    """The ABI of this machine, as `devices.runtimes.ABIS` names it."""
    machine = platform.machine().lower()
    return _ABIS.get(machine, machine)


def compilers(abi: str) -> Iterator[Compiler]:
    """The C++ compilers here that build for an ABI, the preferred one first."""
    if abi == own_abi():
        for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
            if name and shutil.which(name):
                yield Compiler((name,), abi)
    elif abi == "aarch64":
        if shutil.which("aarch64-linux-gnu-g++"):
            yield Compiler(("aarch64-linux-gnu-g++",), abi)
        if find_spec("ziglang") is not None:
            zig = (sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu.2.28")
            yield Compiler(zig, abi)


def find_compiler(abi: str) -> Compiler:
    """The first compiler for an ABI.

    Raises:
        BuildError: there is none.
    """
    found = next(compilers(abi), None)
    if found is None and abi == own_abi():
        raise BuildError(
            f"building {NAME} needs a C++ compiler; install one (Debian: apt-get install g++)"
        )
    if found is None:
        raise BuildError(
            f"building {NAME} for {abi} needs a cross compiler; install one (Debian: apt-get "
            'install g++-aarch64-linux-gnu; or: python -m pip install ".[cross]")'
        )
    return found


def build_library(
    abi: str, folder: Path, compiler: Compiler | None = None, *, has_sanitizers: bool = False
) -> Path:
    """Build the library for an ABI into a folder.

    Args:
        abi: the ABI.
        folder: where it goes.
        compiler: the first one for the ABI unless given.
        has_sanitizers: whether it ends the process at the first address or behaviour that is
            not defined. Then the process must start with LD_PRELOAD naming libasan, libubsan
            and libstdc++, each where `g++ -print-file-name=libasan.so` and the like say.

    Raises:
        BuildError: there is no compiler for it, or it failed.
    """
    compiler = compiler or find_compiler(abi)
    path = folder / NAME
    flags = ["-shared", f"-Wl,--version-script={KERNELS / 'exports.map'}"]
    if has_sanitizers:
        flags += _SANITIZERS
    else:
        flags += ["-s", "-Wl,--gc-sections"]
        if not compiler.is_zig:
            flags += ["-static-libstdc++", "-static-libgcc", "-Wl,-z,defs"]
    more_flags = _SANITIZERS if has_sanitizers else ()
    _build(compiler, sorted(KERNELS.glob("*.cpp")), path, flags, more_flags)
    return path


def is_current(path: Path) -> bool:
    """Whether the library is there and no older than what it is built from."""
    sources = [Path(__file__), *KERNELS.iterdir()]
    return path.is_file() and path.stat().st_mtime >= max(file.stat().st_mtime for file in sources)


def build_program(
    source: Path, path: Path, compiler: Compiler, *, has_sanitizers: bool = False
) -> None:
    """Build a program of one file with the kernels, for tests and measurements.

    Args:
        source: the file with `main`.
        path: of the program.
        compiler: whose machine it is for.
        has_sanitizers: whether it ends at the first address or behaviour that is not defined.

    Raises:
        BuildError: the compiler failed.
    """
    kernels = [file for file in KERNELS.glob("*.cpp") if file.name != "operators.cpp"]
    flags = list(_SANITIZERS) if has_sanitizers else ["-static"] * (compiler.abi != own_abi())
    _build(compiler, [*sorted(kernels), source], path, flags, _SANITIZERS if has_sanitizers else ())


def _build(
    compiler: Compiler,
    sources: Sequence[Path],
    path: Path,
    link_flags: Sequence[str],
    more_flags: Sequence[str] = (),
) -> None:
    """Compile files, several at a time, and link them; the result appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        objects = []
        commands = []
        for source in sources:
            abi, flags = _SETS.get(source.name, (compiler.abi, ()))
            if abi != compiler.abi:
                continue
            object_file = str(Path(scratch, source.stem + ".o"))
            own_flags = [*_FLAGS, *flags, *(_FALSE_ALARMS if flags else ()), *more_flags]
            files = ["-I", str(KERNELS), "-c", str(source), "-o", object_file]
            commands.append([*compiler.command, *own_flags, *files])
            objects.append(object_file)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        made = Path(scratch, path.name)
        _run([*compiler.command, "-pthread", *objects, *link_flags, "-o", str(made)])
        made.replace(path)


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error
    if result.returncode != 0:
        lines = result.stderr.splitlines() or ["it says nothing"]
        first = next((line for line in lines if "error" in line), lines[-1])
        raise BuildError(f"{command[0]} failed: {first}")


def main() -> int:
    """Build for this machine, beside this file; returns the exit code."""
    try:
        print(build_library(own_abi(), Path(__file__).parent))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
