"""NEON's kernels, cross built and run in an emulator of aarch64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bibench_deploy.devices.runtimes import add_program
from bibench_deploy.profiling.runners.native import NativeRunner
from bibench_deploy.targets.native.build import Compiler, build_library, build_program
from tests.deploy.targets.native.test_build import SUITE


@pytest.mark.board
def test_neon_computes_what_plain_loops_do(tmp_path: Path) -> None:
    program = tmp_path / "suite"
    # A static program runs without a board's libraries; zig makes none with glibc.
    build_program(SUITE, program, Compiler(("aarch64-linux-gnu-g++",), "aarch64"))
    done = subprocess.run(
        ["qemu-aarch64-static", program, "60", "0"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "60 shapes equal with neon portable\n"), done


@pytest.mark.board
def test_a_library_for_a_board_is_built_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    kept = add_program(NativeRunner.program, "aarch64", build_library("aarch64", tmp_path))
    assert kept.path.stat().st_size <= 400_000


@pytest.mark.board
def test_the_library_for_a_board_is_built_and_kept_without_naming_a_file(tmp_path) -> None:
    program = Path(sys.executable).with_name("bibench")
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    command = [program, "runtimes", "add", "native", "--abi", "aarch64"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    (kept,) = (tmp_path / "bibench" / "runtimes" / "native" / "aarch64").glob("?" * 64)
    assert kept.read_bytes()[18:20] == b"\xb7\x00"  # e_machine of ELF: 183, aarch64
