"""Time several .tflite files in turn in LCE's interpreter, in fresh processes.

As a script, `python -m benchmarks._interleaved RUNS FILE…`, it prints one JSON list of
milliseconds for each file: one run of each file after the other, RUNS times.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

WARMUP_RUNS = 5


def interleaved_ms(files: list[Path], processes: int, runs: int) -> list[list[float]]:
    """The median time of each file in each process: a process keeps what luck gave it.

    Returns:
        For each file one number per process.
    """
    medians: list[list[float]] = [[] for _ in files]
    for _ in range(processes):
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks._interleaved", str(runs), *map(str, files)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        for own, samples in zip(medians, json.loads(result.stdout), strict=True):
            own.append(median(samples))
    return medians


def ratio_and_noise(
    ours: list[float], theirs: list[float], again: list[float]
) -> tuple[float, float]:
    """The median ratio over processes, and how far a file differs from itself.

    Args:
        ours: median time in each process.
        theirs: the same of the file that it is held against.
        again: the same of a second interpreter of `theirs`.

    Returns:
        (ratio, noise): noise is the largest |again / theirs − 1|.

    Example:
        >>> ratio_and_noise([11.0, 10.0, 12.0], [10.0, 10.0, 10.0], [10.0, 10.2, 9.9])
        (1.1, 0.02)
    """
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    noise = max(abs(a / b - 1) for a, b in zip(again, theirs, strict=True))
    return round(ratio, 4), round(noise, 4)


def main() -> None:
    """Time the files of the command line."""
    from bibench_deploy.targets.lce.run_model import load_interpreter, make_inputs

    runs = int(sys.argv[1])
    calls = []
    for file in sys.argv[2:]:
        interpreter = load_interpreter(Path(file).read_bytes())
        calls.append((interpreter.predict, make_inputs(interpreter, 0)))
    samples: list[list[float]] = [[] for _ in calls]
    gc.disable()
    for run in range(WARMUP_RUNS + runs):
        for (predict, inputs), own in zip(calls, samples, strict=True):
            begun_at = time.perf_counter_ns()
            predict(inputs)
            if run >= WARMUP_RUNS:
                own.append((time.perf_counter_ns() - begun_at) / 1e6)
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
