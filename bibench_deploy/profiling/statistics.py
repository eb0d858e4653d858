"""From samples to one figure with an interval and a verdict.

A block holds the samples of one process. Samples of one block share everything that the
process drew once, such as where its memory lies, so they do not tell how far a fresh process
would differ: intervals are taken over blocks. Each choice has its source in docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000

MIN_BLOCKS = 3
MAX_INTERVAL = 0.05
MAX_SCATTER = 0.05
MAX_OTHER_LOAD = 0.05
MAX_DRIFT = 0.05
# A rise as steady as that of the blocks comes about by chance less often than this.
TREND_LEVEL = 0.01
MAX_GROUPS = 50

# Makes the median absolute deviation of a normal distribution its standard deviation.
MAD_TO_SIGMA = 1.4826
# The same of the interquartile range.
IQR_TO_SIGMA = 0.7413


@dataclass(frozen=True)
class Aggregate:
    """The timed inferences of a process that keeps no single sample.

    Attributes:
        count: how many there were, at least 1.
        mean_ms: their mean.
        median_ms: their median; None where the runner does not say.
        min_ms: the shortest, likewise.
        max_ms: the longest, likewise.
        std_ms: their standard deviation, likewise.
    """

    count: int
    mean_ms: float
    median_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    std_ms: float | None = None

    @property
    def middle_ms(self) -> float:
        """The median; the mean where the runner does not say."""
        return self.mean_ms if self.median_ms is None else self.median_ms


@dataclass(frozen=True)
class Latency:
    """Time of one inference, in milliseconds.

    Attributes:
        p50: median of the block medians; of the block means where a runner gives no more.
        p90: median of the blocks' 90th percentiles; None where samples are not kept.
        low_ms: lower end of the 95 % interval of p50; None from a single block.
        high_ms: upper end, likewise.
        mad_ms: median of the blocks' median absolute deviations: the scatter inside a process;
            None where samples are not kept.
        iqr_ms: median of the blocks' interquartile ranges, likewise.
    """

    p50: float
    p90: float | None
    low_ms: float | None
    high_ms: float | None
    mad_ms: float | None
    iqr_ms: float | None = None

    @property
    def scatter_ms(self) -> float:
        """Standard deviation inside a process, were it normal; 0 where samples are not kept.

        The larger of two estimates: of samples of two kinds, such as those of two kinds of
        cores, the deviation from the median sees nothing of the kind that is less than half.
        """
        return max(MAD_TO_SIGMA * (self.mad_ms or 0.0), IQR_TO_SIGMA * (self.iqr_ms or 0.0))


@dataclass(frozen=True)
class Drift:
    """How much slower a cell became, as a fraction; below 0 where it became faster.

    Attributes:
        in_process: from the first to the last third of a process's samples, median over blocks;
            None where samples are not kept, or too few.
        over_run: from the first to the last third of the blocks in the order in which they ran;
            None from fewer than 3.
        is_trend: whether the blocks rose too steadily for chance.
    """

    in_process: float | None
    over_run: float | None
    is_trend: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a figure may be relied on: `stable`, `noisy` or `throttled`, and why."""

    name: str
    reason: str


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """Give the median distance of the samples from their median.

    Raises:
        ValueError: there are no samples.

    Example:
        >>> median_absolute_deviation([1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0])
        1.0
    """
    array = _array(samples)
    return float(np.median(np.abs(array - np.median(array))))


def median_interval(block_medians: Sequence[float]) -> tuple[float, float] | None:
    """Give the 95 % percentile-bootstrap interval of the median of block medians.

    Blocks are drawn with replacement, 10 000 times, always in the same way, so that a file
    gives the same interval whenever it is read. With 3 blocks it is their whole range.

    Source: Efron, "Bootstrap methods: another look at the jackknife", 1979,
    https://doi.org/10.1214/aos/1176344552.

    Args:
        block_medians: one for each block, in ms.

    Returns:
        Lower and upper end in ms; None from a single block, which says nothing of others.

    Raises:
        ValueError: there are no blocks.

    Example:
        >>> median_interval([2.0, 2.5, 2.1])
        (2.0, 2.5)
    """
    array = _array(block_medians)
    if array.size == 1:
        return None
    return _middle_of(_drawn_medians(array, np.random.default_rng(0)))


def change_interval(
    old_medians: Sequence[float], new_medians: Sequence[float]
) -> tuple[float, float] | None:
    """Give the 95 % percentile-bootstrap interval of a change: median over median, less 1.

    The blocks of both sides are drawn with replacement, each side for itself.

    Args:
        old_medians: one for each block, in ms.
        new_medians: likewise; the numbers of blocks may differ.

    Returns:
        Lower and upper end, as a fraction of the old median: 0.1 is 10 % slower. None where a
        side has a single block.

    Raises:
        ValueError: a side has no blocks.

    Example:
        >>> change_interval([2.0, 2.0, 2.0], [3.0, 3.0, 3.0])
        (0.5, 0.5)
    """
    old, new = _array(old_medians), _array(new_medians)
    if 1 in (old.size, new.size):
        return None
    generator = np.random.default_rng(0)
    return _middle_of(_drawn_medians(new, generator) / _drawn_medians(old, generator) - 1)


def _drawn_medians(blocks: _Array, generator: np.random.Generator) -> _Array:
    picks = generator.integers(0, blocks.size, (RESAMPLES, blocks.size))
    medians: _Array = np.median(blocks[picks], axis=1)
    return medians


def _middle_of(draws: _Array) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    # No interpolation: an end is then always a value that was drawn.
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def summarize(blocks: Sequence[Sequence[float]]) -> Latency:
    """Reduce the samples of a cell to its figures; every block counts the same.

    Args:
        blocks: for each block its samples in ms.

    Raises:
        ValueError: there are no blocks, or a block has no samples.

    Example:
        >>> summarize([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [3.0, 4.0, 5.0]]).p50
        3.0
    """
    arrays = [_array(block) for block in blocks]
    medians = [float(np.median(array)) for array in arrays]
    low_ms, high_ms = median_interval(medians) or (None, None)
    # The definition 7 of Hyndman and Fan, which numpy, R and spreadsheets use.
    percentiles = np.array([np.percentile(array, (25, 75, 90)) for array in arrays])
    return Latency(
        p50=float(np.median(medians)),
        p90=float(np.median(percentiles[:, 2])),
        low_ms=low_ms,
        high_ms=high_ms,
        mad_ms=float(np.median([median_absolute_deviation(block) for block in blocks])),
        iqr_ms=float(np.median(percentiles[:, 1] - percentiles[:, 0])),
    )


def summarize_aggregates(blocks: Sequence[Aggregate]) -> Latency:
    """Reduce the blocks of a cell whose runner keeps no samples to what can be said of them.

    Raises:
        ValueError: there are no blocks.

    Example:
        >>> summarize_aggregates([Aggregate(50, 2.0), Aggregate(50, 2.5), Aggregate(50, 2.1)])
        Latency(p50=2.1, p90=None, low_ms=2.0, high_ms=2.5, mad_ms=None, iqr_ms=None)
    """
    middles = [block.middle_ms for block in blocks]
    low_ms, high_ms = median_interval(middles) or (None, None)
    return Latency(float(np.median(middles)), None, low_ms, high_ms, None)


def drift(values: Sequence[float]) -> float | None:
    """Give the median of the last third over that of the first, less 1; None for fewer than 3.

    Example:
        >>> drift([1.0, 1.0, 5.0, 5.0, 1.5, 1.5])
        0.5
    """
    third = len(values) // 3
    if third == 0:
        return None
    # A block has few values as often as many: numpy would take its time over the few.
    return median(values[-third:]) / median(values[:third]) - 1


def chance_of_rise(values: Sequence[float]) -> float:
    """Give the probability that values in random order rise at least as steadily as these.

    Counts the pairs of which the later value is the larger, less those of which it is the
    smaller, and gives the exact share of all orders that have no lower count; ties count as
    neither, which makes it a little too large. More than MAX_GROUPS values are first brought
    down to that many medians of neighbours.

    Source: Mann, "Nonparametric tests against trend", 1945, https://doi.org/10.2307/1907187.

    Example:
        >>> round(chance_of_rise([1.0, 2.0, 3.0]), 4)  # one order of six
        0.1667
    """
    groups = np.array_split(_array(values), min(len(values), MAX_GROUPS))
    array = np.array([np.median(group) for group in groups])
    rises = int(np.sign(array[None, :] - array[:, None])[np.triu_indices(len(array), 1)].sum())
    pairs = len(array) * (len(array) - 1) // 2
    # Orders of n values by their inversions: the n-th value adds 0 to n - 1 of them.
    shares = np.ones(1)
    for count in range(2, len(array) + 1):
        shares = np.convolve(shares, np.full(count, 1 / count))
    return float(shares[: (pairs - rises) // 2 + 1].sum())


def find_drift(block_medians: Sequence[float], blocks: Sequence[Sequence[float]]) -> Drift:
    """Say how much slower a cell became in its processes, and from process to process.

    Args:
        block_medians: one for each block, in the order in which they ran.
        blocks: for each block its samples; empty where they are not kept.
    """
    inside = [found for block in blocks if (found := drift(block)) is not None]
    return Drift(
        in_process=float(np.median(inside)) if inside else None,
        over_run=drift(block_medians),
        is_trend=chance_of_rise(block_medians) < TREND_LEVEL,
    )


def judge(
    latency: Latency,
    block_count: int,
    settled_count: int,
    other_load: float | None,
    drifted: Drift | None = None,
    held_back: str | None = None,
) -> Verdict:
    """Say whether a cell's figure may be relied on; what fails first gives the reason.

    Args:
        latency: as `summarize` gives it.
        block_count: how many blocks it rests on.
        settled_count: in how many of them the warm-up settled.
        other_load: share of the processors' time, 0 to 1, that other processes used in the
            middle block; None where unknown.
        drifted: as `find_drift` gives it; None where it was not looked for.
        held_back: what the device said that slowed its processor; None for nothing.

    Example:
        >>> judge(Latency(2.0, 2.1, 1.99, 2.01, 0.01), 3, settled_count=3, other_load=0.01)
        Verdict(name='stable', reason='95 % interval spans 1.0 % of p50')
    """
    if block_count < MIN_BLOCKS or latency.low_ms is None or latency.high_ms is None:
        plural = "" if block_count == 1 else "s"
        return Verdict("noisy", f"{block_count} block{plural} measured, {MIN_BLOCKS} needed")
    if other_load is not None and other_load > MAX_OTHER_LOAD:
        return Verdict(
            "noisy",
            f"other processes used {_percent(other_load)} of the processors' time, "
            f"limit {_percent(MAX_OTHER_LOAD)}",
        )
    if (reason := held_back or _slowed_down(drifted)) is not None:
        return Verdict("throttled", reason)
    span = (latency.high_ms - latency.low_ms) / latency.p50
    spanned = f"95 % interval spans {_percent(span)} of p50"
    if span > MAX_INTERVAL:
        return Verdict("noisy", f"processes differ: {spanned}, limit {_percent(MAX_INTERVAL)}")
    scatter = latency.scatter_ms / latency.p50
    if scatter > MAX_SCATTER:
        return Verdict(
            "noisy",
            f"samples scatter inside a process: {_percent(scatter)} of p50, "
            f"limit {_percent(MAX_SCATTER)}",
        )
    if 2 * settled_count < block_count:
        return Verdict(
            "noisy", f"the warm-up settled in {settled_count} of {block_count} blocks only"
        )
    return Verdict("stable", spanned)


def _slowed_down(drifted: Drift | None) -> str | None:
    if drifted is None:
        return None
    if drifted.in_process is not None and drifted.in_process > MAX_DRIFT:
        what = "the samples of a process became"
        share = drifted.in_process
    elif drifted.is_trend and drifted.over_run is not None and drifted.over_run > MAX_DRIFT:
        what = "one process after the other became"
        share = drifted.over_run
    else:
        return None
    return (
        f"{what} {_percent(share)} slower from the first third to the last, "
        f"limit {_percent(MAX_DRIFT)}: the device slows down under load"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _array(samples: Sequence[float]) -> _Array:
    array = np.asarray(samples, dtype=np.float64)
    if array.size == 0:
        raise ValueError("statistics need at least one sample")
    return array
