"""Run a command and measure it: wall time, and the largest memory of it and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

SAMPLE_S = 0.02
BIBENCH = str(Path(sys.executable).with_name("bibench"))
# pip compiles what it installs; where that is forbidden, a checkout is compiled at each start.
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}


def wall_seconds(command: list[str], repeats: int, cwd: str | None = None) -> float:
    """The median wall time of a command that succeeds, start-up included."""
    times = []
    for _ in range(repeats):
        begun_at = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=cwd, env=ENVIRONMENT)
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


def peak_tree_memory_mib(command: list[str], cwd: str | None = None) -> float:
    """The largest sum of the resident sets of a command and its descendants, sampled.

    Pages that processes share count for each of them: the true figure is not larger. Linux
    only.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident_pages(pid) for pid in descendants(process.pid)))
        time.sleep(SAMPLE_S)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants(pid: int) -> list[int]:
    """A process and every process that it or its descendants started and that still runs."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it ended meanwhile
            continue
        for child in children:
            found += descendants(int(child))
    return found


def resident_pages(pid: int) -> int:
    """Resident pages of a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
