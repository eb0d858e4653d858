"""The library is built from its sources, for this machine and for boards."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bibench_deploy.targets.native import build
from bibench_deploy.targets.native.build import BuildError, Compiler

SUITE = Path(__file__).with_name("kernel_suite.cpp")


def test_a_library_is_current_unless_a_source_is_newer(tmp_path: Path) -> None:
    path = tmp_path / build.NAME
    assert not build.is_current(path)
    path.touch()
    assert build.is_current(path)
    os.utime(path, (0, 0))
    assert not build.is_current(path)


def test_without_a_compiler_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert build.main() == 2
    assert "apt-get install g++" in capsys.readouterr().err
    monkeypatch.setattr(build, "own_abi", lambda: "x86-64")
    with pytest.raises(BuildError, match=r"g\+\+-aarch64-linux-gnu; or: .*\.\[cross\]"):
        build.find_compiler("aarch64")


def test_a_compiler_that_fails_is_named_with_its_first_error(tmp_path: Path) -> None:
    script = tmp_path / "failing"
    script.write_text("#!/bin/sh\necho note >&2\necho 'x.cpp:1: error: odd' >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(BuildError, match=r"failing failed: x.cpp:1: error: odd"):
        build.build_library(build.own_abi(), tmp_path, Compiler((str(script),), build.own_abi()))
    assert [path.name for path in tmp_path.iterdir()] == ["failing"]


def test_zig_is_a_cross_compiler_where_debians_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "own_abi", lambda: "x86-64")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "find_spec", lambda name: object())
    compiler = build.find_compiler("aarch64")
    assert compiler.is_zig
    assert compiler.command[-1] == "aarch64-linux-gnu.2.28"


@pytest.mark.slow
@pytest.mark.parametrize("has_sanitizers", [False, True])
def test_every_kernel_computes_what_plain_loops_do(has_sanitizers: bool, tmp_path: Path) -> None:
    program = tmp_path / "suite"
    compiler = build.find_compiler(build.own_abi())
    build.build_program(SUITE, program, compiler, has_sanitizers=has_sanitizers)
    for seed in range(2):
        command = [program, "60" if has_sanitizers else "400", str(seed)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "portable" in done.stdout


@pytest.mark.slow
def test_a_wrong_kernel_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(build.KERNELS, tmp_path / "kernels")
    source = tmp_path / "kernels" / "portable.cpp"
    text = source.read_text()
    source.write_text(text.replace("4 * popcount(fours)", "3 * popcount(fours)"))
    assert source.read_text() != text
    monkeypatch.setattr(build, "KERNELS", tmp_path / "kernels")
    program = tmp_path / "suite"
    build.build_program(SUITE, program, build.find_compiler(build.own_abi()))
    done = subprocess.run([program, "20", "0"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "portable differs" in done.stdout
