from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.profiling.statistics import (
    MAX_GROUPS,
    Drift,
    Latency,
    Verdict,
    chance_of_rise,
    change_interval,
    drift,
    find_drift,
    judge,
    median_absolute_deviation,
    median_interval,
    summarize,
)

# 10,000 draws take long on a busy machine.
unhurried = settings(deadline=None)
times = st.floats(0.001, 1e4, allow_nan=False)
blocks_of_times = st.lists(st.lists(times, min_size=1, max_size=20), min_size=1, max_size=9)

STEADY = Latency(p50=10.0, p90=10.2, low_ms=9.9, high_ms=10.1, mad_ms=0.1)


def test_the_headline_is_the_median_of_the_block_medians() -> None:
    # Medians 2, 30 and 4; over all samples at once it would be 5.
    blocks = [[1.0, 2.0, 3.0], [30.0], [4.0, 4.0, 4.0, 5.0, 5.0, 4.0, 3.0]]
    assert summarize(blocks).p50 == 4.0


def test_p90_interpolates_between_samples_as_definition_7_says() -> None:
    # 11 samples 0..100: rank 0.9 * 10 = 9, the tenth. 5 samples: rank 3.6 between 4 and 5.
    assert summarize([[float(10 * n) for n in range(11)]]).p90 == pytest.approx(90.0)
    assert summarize([[1.0, 2.0, 3.0, 4.0, 5.0]]).p90 == pytest.approx(4.6)


def test_the_interquartile_range_is_that_inside_processes() -> None:
    # Ranks 0.25 * 4 = 1 and 3 of five samples.
    assert summarize([[1.0, 2.0, 3.0, 4.0, 9.0], [11.0, 12.0, 13.0, 14.0, 15.0]]).iqr_ms == 2.0


def test_every_block_counts_the_same_however_many_samples_it_has() -> None:
    assert summarize([[1.0] * 1000, [2.0], [3.0]]).p50 == 2.0
    assert summarize([[1.0] * 1000, [2.0], [3.0]]).p90 == 2.0


def test_the_scatter_is_that_inside_processes_not_between_them() -> None:
    # Deviations from the medians 2 and 102 are 1, 0, 1: their median is 1.
    assert summarize([[1.0, 2.0, 3.0], [101.0, 102.0, 103.0]]).mad_ms == 1.0


def test_three_blocks_give_their_range_as_the_interval() -> None:
    # The median of three draws is the smallest with probability 7/27, far above 2.5 %.
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_nine_blocks_leave_their_extremes_out_of_the_interval() -> None:
    # P(median of 9 draws <= k-th smallest) = P(Binomial(9, k/9) >= 5), which is 0.0014 for
    # k = 1 and 0.030 for k = 2: the 2.5 % quantile is the second smallest.
    assert median_interval([float(n) for n in range(1, 10)]) == (2.0, 8.0)


def test_one_block_has_no_interval() -> None:
    latency = summarize([[1.0, 2.0]])
    assert (latency.low_ms, latency.high_ms) == (None, None)


def test_no_samples_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        summarize([[1.0], []])
    with pytest.raises(ValueError, match="at least one sample"):
        summarize([])
    with pytest.raises(ValueError, match="at least one sample"):
        median_absolute_deviation([])


@unhurried
@given(blocks_of_times)
def test_the_interval_holds_the_headline_and_lies_within_the_samples(
    blocks: list[list[float]],
) -> None:
    latency = summarize(blocks)
    everything = [sample for block in blocks for sample in block]
    assert min(everything) <= latency.p50 <= max(everything)
    if latency.low_ms is not None and latency.high_ms is not None:
        # Medians of an even number of blocks are means of two, rounded.
        assert latency.low_ms <= latency.p50 * (1 + 1e-12)
        assert latency.high_ms >= latency.p50 * (1 - 1e-12)


@unhurried
@given(blocks_of_times)
def test_the_order_of_the_samples_does_not_matter(
    blocks: list[list[float]],
) -> None:
    straight, turned = summarize(blocks), summarize([block[::-1] for block in blocks])
    assert straight == turned


@unhurried
@given(blocks_of_times)
def test_times_twice_as_long_give_figures_twice_as_large(blocks: list[list[float]]) -> None:
    latency, twice = summarize(blocks), summarize([[2 * t for t in block] for block in blocks])
    assert twice.p50 == pytest.approx(2 * latency.p50)
    assert twice.mad_ms == pytest.approx(2 * latency.mad_ms)
    if latency.low_ms is not None:
        assert twice.low_ms == pytest.approx(2 * latency.low_ms)


def test_a_nine_block_interval_covers_the_truth_in_about_95_percent_of_sweeps() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        interval = median_interval(list(generator.normal(10.0, 1.0, 9)))
        assert interval is not None
        covered += interval[0] <= 10.0 <= interval[1]
    # A percentile bootstrap of a median is a little narrow from few blocks.
    assert 0.88 <= covered / 300 <= 0.99


def test_a_steady_cell_is_stable_and_says_how_steady() -> None:
    verdict = judge(STEADY, 3, settled_count=3, other_load=0.01)
    assert (verdict.name, verdict.reason) == ("stable", "95 % interval spans 2.0 % of p50")


def test_processes_that_differ_make_a_cell_noisy() -> None:
    latency = Latency(p50=10.0, p90=12.0, low_ms=9.5, high_ms=10.6, mad_ms=0.1)
    verdict = judge(latency, 3, settled_count=3, other_load=0.0)
    assert verdict.name == "noisy"
    assert verdict.reason == ("processes differ: 95 % interval spans 11.0 % of p50, limit 5.0 %")


def test_samples_that_scatter_make_a_cell_noisy() -> None:
    latency = Latency(p50=10.0, p90=12.0, low_ms=9.9, high_ms=10.1, mad_ms=1.0)
    verdict = judge(latency, 3, settled_count=3, other_load=0.0)
    assert verdict.name == "noisy"
    assert verdict.reason.startswith("samples scatter inside a process: 14.8 % of p50")


def test_other_processes_at_work_make_a_cell_noisy_however_steady_it_looks() -> None:
    verdict = judge(STEADY, 3, settled_count=3, other_load=0.5)
    assert verdict.name == "noisy"
    assert verdict.reason == "other processes used 50.0 % of the processors' time, limit 5.0 %"


def test_a_device_that_does_not_tell_its_load_can_still_be_stable() -> None:
    assert judge(STEADY, 3, settled_count=3, other_load=None).name == "stable"


def test_too_few_blocks_make_a_cell_noisy() -> None:
    one_block = Latency(p50=10.0, p90=10.2, low_ms=None, high_ms=None, mad_ms=0.1)
    assert judge(one_block, 1, 1, None).reason == "1 block measured, 3 needed"
    assert judge(STEADY, 2, 2, None).reason == "2 blocks measured, 3 needed"


def test_warm_ups_that_mostly_do_not_settle_make_a_cell_noisy() -> None:
    assert judge(STEADY, 3, settled_count=2, other_load=None).name == "stable"
    verdict = judge(STEADY, 3, settled_count=1, other_load=None)
    assert verdict.reason == "the warm-up settled in 1 of 3 blocks only"


def test_a_change_of_two_constants_is_exact() -> None:
    assert change_interval([2.0] * 9, [3.0] * 9) == (0.5, 0.5)


def test_a_change_from_three_blocks_spans_its_extremes() -> None:
    # Each side's median of three draws is its smallest or largest with probability 7/27 each.
    low, high = change_interval([1.0, 2.0, 4.0], [8.0, 16.0, 32.0]) or (0, 0)
    assert (low, high) == (8 / 4 - 1, 32 / 1 - 1)


def test_a_single_block_on_either_side_says_nothing_of_a_change() -> None:
    assert change_interval([1.0], [1.0, 2.0, 3.0]) is None
    assert change_interval([1.0, 2.0, 3.0], [1.0]) is None


def test_a_change_covers_the_truth_in_about_95_percent_of_comparisons() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        old, new = generator.normal(10.0, 0.2, 9), generator.normal(11.0, 0.2, 9)
        low, high = change_interval(list(old), list(new)) or (0, 0)
        covered += low <= 0.1 <= high
    assert 0.90 <= covered / 300 <= 1.0


def test_drift_is_the_last_third_over_the_first() -> None:
    assert drift([10.0, 11.0, 12.0, 99.0, 99.0, 99.0, 20.0, 22.0, 24.0]) == 1.0
    assert drift([1.0, 2.0]) is None


def test_the_chance_of_a_rise_is_its_share_of_all_orders() -> None:
    # Of the 24 orders of four values one rises throughout, and three more with one inversion.
    assert chance_of_rise([1.0, 2.0, 3.0, 4.0]) == pytest.approx(1 / 24)
    assert chance_of_rise([1.0, 2.0, 4.0, 3.0]) == pytest.approx(4 / 24)
    assert chance_of_rise([4.0, 3.0, 2.0, 1.0]) == pytest.approx(1.0)
    assert chance_of_rise([5.0]) == 1.0


@unhurried
@given(st.permutations(range(6)))
def test_the_chance_of_a_rise_is_that_of_counting_every_order(order: list[int]) -> None:
    def rises(values: tuple[int, ...] | list[int]) -> int:
        pairs = itertools.combinations(values, 2)
        return sum(1 if later > earlier else -1 for earlier, later in pairs)

    least = rises(order)
    counted = sum(rises(other) >= least for other in itertools.permutations(range(6)))
    assert chance_of_rise([float(n) for n in order]) == pytest.approx(counted / 720)


def test_many_blocks_are_brought_down_to_a_number_that_can_be_counted() -> None:
    assert chance_of_rise([float(n) for n in range(100_000)]) < 1e-12
    assert 0 < chance_of_rise([1.0] * (MAX_GROUPS + 1)) <= 1


SAMPLES = 60


def cell_of(*blocks: np.ndarray) -> Verdict:
    """The verdict of blocks of samples, as a sweep would give it."""
    samples = [[float(sample) for sample in block] for block in blocks]
    drifted = find_drift([float(np.median(block)) for block in samples], samples)
    return judge(summarize(samples), len(samples), len(samples), 0.0, drifted)


def verdicts(simulate: Callable[[np.random.Generator], list[np.ndarray]]) -> Counter[str]:
    generator = np.random.default_rng(1)
    return Counter(cell_of(*simulate(generator)).name for _ in range(100))


def test_a_steady_device_is_called_stable() -> None:
    found = verdicts(lambda g: [10 + g.normal(0, 0.1, SAMPLES) for _ in range(9)])
    assert found["stable"] >= 99


def test_a_steady_device_with_some_interrupted_samples_is_called_stable() -> None:
    def simulate(g: np.random.Generator) -> list[np.ndarray]:
        late = [np.where(g.random(SAMPLES) < 0.05, g.exponential(20, SAMPLES), 0) for _ in range(9)]
        return [10 + g.normal(0, 0.1, SAMPLES) + extra for extra in late]

    assert verdicts(simulate)["stable"] >= 99


def test_a_device_that_wanders_from_process_to_process_is_noisy() -> None:
    def simulate(g: np.random.Generator) -> list[np.ndarray]:
        return [10 + shift + g.normal(0, 0.1, SAMPLES) for shift in g.normal(0, 1, 9)]

    # Now and then seven of nine happen to lie within 5 %.
    assert verdicts(simulate)["noisy"] >= 95


def test_two_kinds_of_processes_are_noisy() -> None:
    # Four of nine fall on the slow side: the interval of the median reaches from one to the other.
    def simulate(g: np.random.Generator) -> list[np.ndarray]:
        levels = g.permutation([10.0] * 5 + [12.0] * 4)
        return [level + g.normal(0, 0.05, SAMPLES) for level in levels]

    found = verdicts(simulate)
    assert found["stable"] == 0
    # One order of the two kinds in 126 is all fast ones first, which looks as throttling does.
    assert found["noisy"] >= 95


@pytest.mark.parametrize("share", [0.35, 0.5, 0.65])
def test_two_kinds_of_samples_are_noisy(share: float) -> None:
    def simulate(g: np.random.Generator) -> list[np.ndarray]:
        return [np.where(g.random(SAMPLES) < share, 10.0, 13.0) for _ in range(9)]

    assert verdicts(simulate)["stable"] == 0


def test_a_device_that_throttles_in_each_process_is_throttled() -> None:
    def simulate(g: np.random.Generator) -> list[np.ndarray]:
        heat = 1 + 0.3 * np.clip((np.arange(SAMPLES) - 20) / 20, 0, 1)
        return [10 * heat + g.normal(0, 0.1, SAMPLES) for _ in range(9)]

    assert verdicts(simulate) == {"throttled": 100}


def test_a_device_that_throttles_over_the_whole_sweep_is_throttled() -> None:
    def simulate(g: np.random.Generator) -> list[np.ndarray]:
        return [10 + 0.2 * number + g.normal(0, 0.1, SAMPLES) for number in range(9)]

    assert verdicts(simulate) == {"throttled": 100}


def test_a_device_that_becomes_faster_is_not_throttled() -> None:
    verdict = cell_of(*(np.full(SAMPLES, 12 - 0.3 * number) for number in range(9)))
    assert verdict.name == "noisy"
    assert verdict.reason.startswith("processes differ")


def test_three_rising_blocks_are_too_few_to_speak_of_throttling() -> None:
    verdict = cell_of(*(np.full(SAMPLES, 10.0 + number) for number in range(3)))
    assert verdict.name == "noisy"


def test_the_reason_of_a_throttled_cell_says_where_it_slowed_down_and_by_how_much() -> None:
    verdict = judge(STEADY, 9, 9, 0.0, Drift(in_process=0.31, over_run=0.0, is_trend=False))
    assert verdict == Verdict(
        "throttled",
        "the samples of a process became 31.0 % slower from the first third to the last, "
        "limit 5.0 %: the device slows down under load",
    )


def test_another_process_at_work_explains_a_slow_down_first() -> None:
    assert judge(STEADY, 9, 9, 0.5, Drift(0.31, 0.31, is_trend=True)).name == "noisy"
