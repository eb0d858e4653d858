"""The hardware track: how much faster and how much smaller binarized models are on a device.

    overall = √((speed_up² + compression²) / 2)

with speed_up the mean over models of T_fp / T_bi and compression that of S_fp / S_bi, each
FP32 over binary: more than 1 is in favour of the binarized model. Source: Equation 9 of
BiBench (Qin et al., ICML 2023), https://arxiv.org/abs/2301.11233.

The paper does not say over what it takes the mean, and its printed speed-ups, 5.45 and 4.89,
follow from its printed latencies (Tables 17 to 20) under no mean that we tried: over all cells
alike they would be 5.54 and 5.06. So the convention is ours: the mean is over models, each
model and each FP32 twin at its own fastest thread count, since nobody deploys a model at a
thread count that slows it down. The ratios at equal thread counts stand beside it, and so do
the paper's printed figures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from bibench_deploy.tracks._quadratic_mean import quadratic_mean

# Table 3 prints for these the figures of BNN: what remains of them at inference is the same.
_MEASURED_AS = {"dorefa": "bnn", "bireal": "bnn", "recu": "bnn", "fda": "bnn"}
# Engine and algorithm of each pair of columns in reference/latency.csv.
_COLUMNS = (
    ("lce", "bnn", "larq_fp32_ms", "larq_bnn_ms"),
    ("lce", "reactnet", "larq_fp32_ms", "larq_reactnet_ms"),
    ("dabnn", "bnn", "dabnn_fp32_ms", "dabnn_bnn_ms"),
)


@dataclass(frozen=True)
class Timing:
    """Time of one inference at one thread count, and whether it may be relied on."""

    ms: float
    is_stable: bool = True


@dataclass(frozen=True)
class Speedup:
    """FP32 latency over binary latency, and the thread counts that were compared."""

    device: str
    ratio: float
    threads: int
    twin_threads: int
    is_noisy: bool


@dataclass(frozen=True)
class Pair:
    """A binarized model and its FP32 twin on one device.

    Attributes:
        device: name of the device.
        engine: target that the binarized model was written for.
        model: what the model is called.
        algorithm: that binarized it; None where the source does not say.
        binary: by thread count.
        fp32: by thread count.
        size_ratio: bytes of the twin over those of the model; None where unknown.
    """

    device: str
    engine: str
    model: str
    algorithm: str | None
    binary: Mapping[int, Timing]
    fp32: Mapping[int, Timing]
    size_ratio: float | None = None

    @property
    def speedups(self) -> tuple[Speedup, ...]:
        """Against the twin at the same thread count, for each that both were timed at."""
        return tuple(
            self._speedup(threads, threads) for threads in self.binary if threads in self.fp32
        )

    @property
    def fastest(self) -> Speedup | None:
        """Each side at its own fastest thread count; None where one was not timed.

        It is looked for among stable timings first: a noisy one never stands for a result
        while there is another.
        """
        if not self.binary or not self.fp32:
            return None
        return self._speedup(_fastest(self.binary), _fastest(self.fp32))

    def _speedup(self, threads: int, twin_threads: int) -> Speedup:
        binary, fp32 = self.binary[threads], self.fp32[twin_threads]
        return Speedup(
            device=self.device,
            ratio=fp32.ms / binary.ms,
            threads=threads,
            twin_threads=twin_threads,
            is_noisy=not (binary.is_stable and fp32.is_stable),
        )


@dataclass(frozen=True)
class Score:
    """The hardware track of one algorithm on one device with one engine.

    Attributes:
        device: name of the device.
        engine: target that the models were written for.
        algorithm: None for models whose source does not say.
        models: how many were compared with their twins.
        by_threads: mean over models of the ratio at equal thread counts; of those models that
            were timed at that count.
        speed_up: mean over models, each side at its own fastest thread count.
        compression: mean over models of the size ratio; None where a size is unknown.
        overall: of these two; None without a compression.
        is_noisy: whether a side of a ratio in `speed_up` is.
    """

    device: str
    engine: str
    algorithm: str | None
    models: int
    by_threads: Mapping[int, float]
    speed_up: float
    compression: float | None
    overall: float | None
    is_noisy: bool

    def to_json(self) -> dict[str, Any]:
        """Give the fields as reports have them; thread counts are numbers there too."""
        at_equal = [{"threads": n, "ratio": ratio} for n, ratio in self.by_threads.items()]
        return asdict(self) | {"by_threads": at_equal}


@dataclass(frozen=True)
class PublishedScore:
    """The hardware track of an algorithm as the paper prints it, over all of its devices.

    All three are None where no engine holds the algorithm.
    """

    algorithm: str
    speed_up: float | None
    compression: float | None
    overall: float | None


def score(pairs: Iterable[Pair]) -> tuple[Score, ...]:
    """Give Equation 9 for each device, engine and algorithm, in the order of the pairs.

    Pairs of which one side was not timed are left out.
    """
    groups: dict[tuple[str, str, str | None], list[Pair]] = {}
    for pair in pairs:
        if pair.fastest is not None:
            groups.setdefault((pair.device, pair.engine, pair.algorithm), []).append(pair)
    return tuple(_score(group) for group in groups.values())


def _score(pairs: Sequence[Pair]) -> Score:
    fastest = [pair.fastest for pair in pairs if pair.fastest is not None]
    at_equal: dict[int, list[float]] = {}
    for speedup in (speedup for pair in pairs for speedup in pair.speedups):
        at_equal.setdefault(speedup.threads, []).append(speedup.ratio)
    speed_up = fmean(speedup.ratio for speedup in fastest)
    sizes = [pair.size_ratio for pair in pairs if pair.size_ratio is not None]
    compression = fmean(sizes) if len(sizes) == len(pairs) else None
    return Score(
        device=pairs[0].device,
        engine=pairs[0].engine,
        algorithm=pairs[0].algorithm,
        models=len(pairs),
        by_threads={threads: fmean(at_equal[threads]) for threads in sorted(at_equal)},
        speed_up=speed_up,
        compression=compression,
        overall=None if compression is None else quadratic_mean([speed_up, compression]),
        is_noisy=any(speedup.is_noisy for speedup in fastest),
    )


@cache
def published_pairs() -> tuple[Pair, ...]:
    """The paper's 174 rows of latencies as pairs; a pair is named by its architecture.

    The paper prints no sizes of these models, and no interval or scatter of any latency.
    """
    pairs = []
    for engine, algorithm, fp32_column, binary_column in _COLUMNS:
        models: dict[tuple[str, str], dict[int, tuple[Timing, Timing]]] = {}
        for row in _rows("latency.csv"):
            if row[binary_column]:
                timed = models.setdefault((row["device"], row["architecture"]), {})
                timed[int(row["threads"])] = (
                    Timing(float(row[binary_column])),
                    Timing(float(row[fp32_column])),
                )
        for (device, architecture), timed in models.items():
            binary = {threads: times[0] for threads, times in timed.items()}
            fp32 = {threads: times[1] for threads, times in timed.items()}
            pairs.append(Pair(device, engine, architecture, algorithm, binary, fp32))
    return tuple(pairs)


def published_scores() -> dict[str, PublishedScore]:
    """The paper's Table 3 by algorithm, as printed."""
    return {
        row["algorithm"]: PublishedScore(
            row["algorithm"], *(float(row[name]) if row[name] else None for name in _FIGURES)
        )
        for row in _rows("scores.csv")
    }


_FIGURES = ("speed_up", "compression", "overall")


def published_chips() -> dict[str, str]:
    """The paper's chips: the name that it prints, by name in the device registry.

    Example:
        >>> published_chips()["pi4"]
        'Raspberry Pi 4B'
    """
    return {row["device"]: row["chip"] for row in _rows("latency.csv")}


def published_as(algorithm: str | None) -> str | None:
    """The algorithm whose latencies the paper prints for this one.

    Example:
        >>> published_as("recu"), published_as("reactnet"), published_as(None)
        ('bnn', 'reactnet', None)
    """
    return None if algorithm is None else _MEASURED_AS.get(algorithm, algorithm)


def _fastest(timings: Mapping[int, Timing]) -> int:
    return min(timings, key=lambda threads: (not timings[threads].is_stable, timings[threads].ms))


@cache
def _rows(name: str) -> tuple[Mapping[str, str], ...]:
    text = (files("bibench_deploy.tracks") / "reference" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
