"""Our export against models written for Larq Compute Engine by hand, of the same topology.

Promise: the same kernels; the same operators, and at most one REVERSE_V2 more; at most 1 kB
more; at most 1.05 times the latency, within the run's noise. Larq Zoo's model takes part
where `larq_zoo` can be imported (`pip install --no-deps larq-zoo zookeeper typeguard click`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks._interleaved import interleaved_ms, ratio_and_noise

PAIRS = (("larq_resnet18", "resnet18"), ("zoo_birealnet", "birealnet"))
MOST_BYTES = 1000
LARGEST_RATIO = 1.05
PROCESSES = 5
RUNS = 30


@dataclass(frozen=True)
class Comparison:
    """A model of ours beside one written by hand.

    Attributes:
        name: of the model written by hand.
        ours: operators of our file, in order.
        theirs: operators of theirs.
        bytes_more: size of ours less that of theirs.
        latency_ratio: ours over theirs.
        noise: how far theirs differs from itself in the same run, as a share.
    """

    name: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    bytes_more: int
    latency_ratio: float
    noise: float

    @property
    def broken_promises(self) -> list[str]:
        """What is missed, in words."""
        more, less = operators_between(self.ours, self.theirs)
        broken = []
        kernels = [[name for name in own if name.startswith("Lce")]
                   for own in (self.ours, self.theirs)]  # fmt: skip
        if kernels[0] != kernels[1]:
            broken.append("other kernels")
        if less or more not in ({}, {"REVERSE_V2": 1}):
            broken.append("other operators")
        if self.bytes_more > MOST_BYTES:
            broken.append("larger")
        if self.latency_ratio > LARGEST_RATIO + self.noise:
            broken.append("slower")
        return broken

    def line(self) -> str:
        """The result in one line."""
        more, less = operators_between(self.ours, self.theirs)
        changes = [f"+{count} {name}" for name, count in more.items()]
        changes += [f"-{count} {name}" for name, count in less.items()]
        return (
            f"against {self.name}: operators {', '.join(changes) or 'the same'}; "
            f"{self.bytes_more:+d} bytes; latency ×{self.latency_ratio:.3f} "
            f"(noise {100 * self.noise:.1f} %); {', '.join(self.broken_promises) or 'kept'}"
        )


def operators_between(
    ours: tuple[str, ...], theirs: tuple[str, ...]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many operators of each name ours has more, and less.

    Example:
        >>> operators_between(("ADD", "MEAN", "ADD"), ("ADD", "MUL"))
        ({'ADD': 1, 'MEAN': 1}, {'MUL': 1})
    """
    here, there = Counter(ours), Counter(theirs)
    return dict(here - there), dict(there - here)


def write_models(folder: Path) -> None:
    """Write each model of PAIRS as NAME.tflite; Larq Zoo's only where it is installed."""
    import torch

    from benchmarks import _birealnet
    from bibench_deploy import export_model

    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, "-m", "benchmarks._larq_models", str(folder)],
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    for theirs, ours in PAIRS:
        if (folder / f"{theirs}.tflite").exists():
            model = getattr(_birealnet, ours)()
            example = torch.zeros(1, 3, 224, 224)
            artifact = export_model(model, example, out=folder / ours, verify=False)
            (folder / f"{ours}.tflite").write_bytes(artifact.model_path.read_bytes())


def compare(folder: Path, processes: int = PROCESSES, runs: int = RUNS) -> list[Comparison]:
    """Compare the pairs that are there."""
    from bibench_deploy.targets.lce.flatbuffer import read_tflite

    found = []
    for pair in PAIRS:
        theirs, ours = (folder / f"{name}.tflite" for name in pair)
        if not theirs.exists():
            continue
        names = [
            tuple(node.name for node in read_tflite(file).operators) for file in (ours, theirs)
        ]
        more = ours.stat().st_size - theirs.stat().st_size
        times = interleaved_ms([ours, theirs, theirs], processes, runs)
        found.append(Comparison(pair[0], *names, more, *ratio_and_noise(*times)))
    return found


def measure() -> str:
    """One line for each pair."""
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        return "\n".join(comparison.line() for comparison in compare(Path(folder)))
