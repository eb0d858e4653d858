"""Build the library for a board of another instruction set, by a cross compiler that is there.

Debian's g++-aarch64-linux-gnu, or zig's C++ compiler from PyPI (the extra `cross`), which needs no
root and builds for older systems: what it makes runs from glibc 2.28 on, what Debian's makes from
the glibc of that release on. Both take the compiler's own libraries into the file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from bibench_deploy.errors import ConversionError, MissingCompilerError
from bibench_deploy.targets.native.library import NAME

KERNELS = Path(__file__).with_name("kernels")
_OTHER_SETS = {"aarch64": ("avx2", "avx512")}
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden",
          "-ffunction-sections", "-fdata-sections", "-shared", "-s", "-Wl,--gc-sections",
          "-pthread")  # fmt: skip
_TIMEOUT_S = 600


def compilers(abi: str) -> Iterator[tuple[str, list[str]]]:
    """The C++ compilers for an ABI that are here: what each is called, and its command.

    Args:
        abi: as `devices.runtimes.ABIS` names it; only aarch64 is cross built.
    """
    if abi != "aarch64":
        return
    if shutil.which("aarch64-linux-gnu-g++"):
        static = ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"]
        yield "aarch64-linux-gnu-g++", ["aarch64-linux-gnu-g++", *static]
    if find_spec("ziglang") is not None:
        target = ["-target", "aarch64-linux-gnu.2.28"]
        yield "zig", [sys.executable, "-m", "ziglang", "c++", *target]


def build_library(abi: str, folder: Path) -> Path:
    """Build the library for an ABI.

    Args:
        abi: of the board.
        folder: where the file goes.

    Raises:
        MissingCompilerError: there is no compiler for it here.
        ConversionError: the compiler failed; gives its first error.
    """
    found = next(compilers(abi), None)
    if found is None:
        raise MissingCompilerError(
            f"building {NAME} for {abi} needs a cross compiler; install one (Debian: apt-get "
            'install g++-aarch64-linux-gnu; or: python -m pip install ".[cross]")'
        )
    name, command = found
    left_out = _OTHER_SETS.get(abi, ())
    sources = sorted(str(path) for path in KERNELS.glob("*.cpp") if path.stem not in left_out)
    path = folder / NAME
    result = subprocess.run(
        [*command, *_FLAGS, *sources, "-o", str(path)],
        capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        lines = result.stderr.splitlines()
        first = next((line for line in lines if "error" in line), (lines or ["no output"])[0])
        raise ConversionError(f"{name} cannot build {NAME} for {abi}: {first}")
    return path
