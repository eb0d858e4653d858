"""Measure what scales cost that run as float operators behind their binary layers.

The same graph is converted once more without them, and both files are timed in turn, so
that a machine which slows down slows both alike.
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.targets.lce.flatbuffer import TfliteModel
from bibench_deploy.targets.lce.run_model import load_interpreter, make_inputs

RUNS = 40
WARMUP_RUNS = 3
SHORTEST_S = 2.0
LONGEST_S = 20.0


@dataclass(frozen=True)
class UnfusedCost:
    """What unfused scales add to a model.

    Attributes:
        layers: how many binary layers have one.
        extra_operators: name → how many more the file has than without them.
        latency_ratio: latency over that without them, one thread, on this machine.
    """

    layers: int
    extra_operators: dict[str, int]
    latency_ratio: float

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as the manifest keeps them."""
        return asdict(self)


def extra_operators(model: TfliteModel, bare: TfliteModel) -> dict[str, int]:
    """How many operators of each name `model` has more than `bare`, most first."""
    more = Counter(node.name for node in model.operators)
    more.subtract(node.name for node in bare.operators)
    return {name: count for name, count in more.most_common() if count > 0}


def latency_ratio(
    model: bytes, bare: bytes, runs: int = RUNS, shortest_s: float = SHORTEST_S
) -> float:
    """Latency of one .tflite file over another's, one thread each.

    Both run in turn, and the ratio is the median over pairs: what slows the machine down for
    a while slows both of a pair.

    Args:
        model: content of the file.
        bare: content of the other.
        runs: of each, at least; fewer where they would take longer than 20 s.
        shortest_s: run on until so many seconds have passed.

    Raises:
        MissingExtraError: LCE's interpreter is not installed.
    """
    try:
        with _silent_stderr():
            interpreters = [load_interpreter(content) for content in (model, bare)]
    except ImportError as error:
        raise MissingExtraError("running a model", "larq_compute_engine", "profile") from error
    inputs = make_inputs(interpreters[0], 0)
    pairs: list[tuple[float, float]] = []
    begun_at = time.perf_counter()
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        while True:
            own, other = (_seconds(interpreter, inputs) for interpreter in interpreters)
            pairs.append((own, other))
            elapsed_s, count = time.perf_counter() - begun_at, len(pairs) - WARMUP_RUNS
            is_enough = count >= runs and elapsed_s >= shortest_s
            if is_enough or (count > 0 and elapsed_s > LONGEST_S):
                break
    finally:
        if was_collecting:
            gc.enable()
    return round(median(own / other for own, other in pairs[WARMUP_RUNS:]), 3)


def _seconds(interpreter: Any, inputs: list[Any]) -> float:
    begun_at = time.perf_counter()
    interpreter.predict(inputs)
    return time.perf_counter() - begun_at


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep XNNPACK from announcing itself: it writes to the file descriptor."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
