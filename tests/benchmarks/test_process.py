"""How benchmarks/_process.py measures a command."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
# A parent and a child that hold 100 MB each at the same time.
HOLD = """
import subprocess, sys, time
held = bytearray(100_000_000)
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"])
    child.wait()
else:
    time.sleep(0.5)
"""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks._process")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_child_is_added(process: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "hold.py"
    script.write_text(HOLD)
    mebibytes = process.peak_tree_memory_mib([sys.executable, str(script)])
    assert 190 < mebibytes < 300


def test_a_command_that_fails_is_an_error(process: ModuleType) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        process.peak_tree_memory_mib([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_process_that_has_ended_holds_nothing(process: ModuleType) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert process.resident_pages(ended.pid) == 0
    assert process.descendants(ended.pid) == [ended.pid]
    assert process.descendants(os.getpid())[0] == os.getpid()
