"""Run a command and measure it: wall time, and the largest memory of its process tree."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

BIBENCH = str(Path(sys.executable).with_name("bibench"))


def wall_seconds(command: list[str], repeats: int, cwd: str | None = None) -> float:
    """The median wall time of a command that succeeds, start-up included."""
    times = []
    for _ in range(repeats):
        begun_at = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=cwd)
        times.append(time.perf_counter() - begun_at)
    return median(times)


def peak_memory_mib(command: list[str], cwd: str | None = None) -> float:
    """The largest resident set among a command and the children that it waits for."""
    # In a process of its own: the kernel keeps one maximum for all children of a process.
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code, *command],
        check=True, capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip
    return int(result.stdout) / 1024
