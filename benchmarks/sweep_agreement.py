"""How far two sweeps of the same models agree, idle and disturbed. Takes about half an hour.

Promise: of ten pairs of sweeps back to back on an idle machine, at least nine agree within their
intervals and at most three are called noisy; with a load beside them at least nine are.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks._process import BIBENCH
from bibench_deploy.profiling.journal import Results
from bibench_deploy.profiling.session import profile_artifacts

MODEL = "ResNet-20"
TRIES, PRESET, THREADS = 10, "standard", (1,)


@dataclass(frozen=True)
class Pair:
    """What two sweeps say of the same cells.

    Attributes:
        agrees: for every cell, the intervals of the two medians share a value.
        is_noisy: some cell of the two is not called stable.
        shift: largest change of a median between the two.
    """

    agrees: bool
    is_noisy: bool
    shift: float


def measure() -> str:
    """Pairs idle, then as many with a program at work on one core."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        artifact = _exported(place)
        idle = [_pair(artifact, place, f"idle{number}") for number in range(TRIES)]
        with _load():
            loaded = [_sweep(artifact, place / f"loaded{n}.jsonl") for n in range(TRIES)]
    agreeing = sum(pair.agrees for pair in idle)
    noisy = sum(pair.is_noisy for pair in idle)
    caught = sum(map(_is_noisy, loaded))
    return (
        f"{MODEL} and its FP32 twin, preset {PRESET}: {agreeing} of {TRIES} pairs of sweeps agree "
        f"within their intervals (promise 9), largest shift {max(p.shift for p in idle):.1%}; "
        f"{noisy} of {TRIES} called noisy (promise at most 3); "
        f"beside a load {caught} of {TRIES} (promise at least 9)"
    )


def _exported(folder: Path) -> Path:
    out = folder / "artifact"
    command = [BIBENCH, "export", "models/digits-resnet20-reactnet", "--baseline", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    return out


def _pair(artifact: Path, folder: Path, name: str) -> Pair:
    first, second = (_sweep(artifact, folder / f"{name}-{turn}.jsonl") for turn in (1, 2))
    agrees, shift = True, 0.0
    for key, cell in first.cells.items():
        one, other = cell.latency_ms, second.cells[key].latency_ms
        agrees &= one.low_ms <= other.high_ms and other.low_ms <= one.high_ms
        shift = max(shift, abs(other.p50 / one.p50 - 1))
    pair = Pair(agrees, _is_noisy(first) or _is_noisy(second), shift)
    print(name, pair, _reasons(first), _reasons(second), file=sys.stderr, flush=True)
    return pair


def _sweep(artifact: Path, out: Path) -> Results:
    return profile_artifacts([artifact], "local", THREADS, PRESET, out).results


def _is_noisy(results: Results) -> bool:
    return any(cell.verdict != "stable" for cell in results.cells.values())


def _reasons(results: Results) -> list[str]:
    return [f"{c.latency_ms.p50:.3f} {c.reason or 'stable'}" for c in results.cells.values()]


@contextlib.contextmanager
def _load() -> Iterator[None]:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()
