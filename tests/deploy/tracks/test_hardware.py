from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from bibench_deploy.tracks.hardware import (
    Pair,
    Timing,
    published_as,
    published_chips,
    published_pairs,
    published_scores,
    score,
)

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    with (GOLDEN / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def timings(**ms):
    return {int(count.removeprefix("t")): Timing(time) for count, time in ms.items()}


def pair(binary, fp32, **changes):
    return replace(Pair("pi4", "lce", "resnet18", "bnn", binary, fp32, 10.0), **changes)


def test_every_ratio_of_the_174_published_rows_is_right():
    # Computed from the printed tables by decimal arithmetic, apart from the code here.
    rows = golden("ratios.csv")
    assert len(rows) == 174
    expected = {
        (row["device"], *column.split("_"), row["architecture"], int(row["threads"])): row[column]
        for row in rows
        for column in ("lce_bnn", "lce_reactnet", "dabnn_bnn")
        if row[column]
    }
    ratios = {
        (found.device, found.engine, found.algorithm, found.model, speedup.threads): speedup.ratio
        for found in published_pairs()
        for speedup in found.speedups
    }
    assert ratios.keys() == expected.keys()
    for key, ratio in ratios.items():
        assert f"{ratio:.6f}" == expected[key], key


@pytest.mark.parametrize("row", golden("means.csv"), ids=lambda row: row["device"])
def test_the_mean_over_a_published_chips_cells_is_right(row):
    for column, expected in row.items():
        if column == "device" or not expected:
            continue
        engine, algorithm, which = column.split("_", 2)
        ratios = [
            speedup.ratio
            for found in published_pairs()
            if (found.device, found.engine, found.algorithm) == (row["device"], engine, algorithm)
            for speedup in found.speedups
            if which == "all" or speedup.threads == 1
        ]
        assert fmean(ratios) == pytest.approx(float(expected), abs=5e-5), column


def test_a_published_chip_scores_each_side_at_its_own_fastest_thread_count():
    # By hand from Table 19: Kirin 990, ReActNet, fastest of each side over 1, 2, 4, 8 threads.
    (found,) = (
        s for s in score(published_pairs()) if (s.device, s.algorithm) == ("kirin990", "reactnet")
    )
    expected = (37.703 / 12.208 + 78.753 / 17.727 + 12.707 / 1.760) / 3
    assert found.speed_up == pytest.approx(expected)
    assert (found.models, found.compression, found.overall) == (3, None, None)


def test_the_printed_scores_are_there_as_printed():
    printed = published_scores()
    assert len(printed) == 8
    assert (printed["bnn"].speed_up, printed["bnn"].compression) == (5.45, 15.62)
    assert (printed["reactnet"].overall, printed["xnor"].overall) == (11.51, None)


def test_there_are_14_published_chips():
    assert len(published_chips()) == 14
    assert published_chips()["snapdragon855plus"] == "Snapdragon 855+"


def test_an_algorithm_that_leaves_a_plain_bnn_is_compared_with_the_published_bnn():
    assert [published_as(name) for name in ("fda", "reactnet", "bnn")] == ["bnn", "reactnet", "bnn"]


def test_the_overall_metric_is_the_quadratic_mean_of_both_parts():
    pairs = [
        pair(timings(t1=10.0, t2=8.0), timings(t1=30.0, t2=16.0), size_ratio=9.0),
        pair(timings(t1=10.0, t2=12.0), timings(t1=60.0, t2=80.0), size_ratio=5.0),
    ]
    (found,) = score(pairs)
    assert found.speed_up == (16.0 / 8.0 + 60.0 / 10.0) / 2
    assert found.compression == 7.0
    assert found.overall == pytest.approx(((4.0**2 + 7.0**2) / 2) ** 0.5)
    assert found.by_threads == {1: 4.5, 2: (16.0 / 8.0 + 80.0 / 12.0) / 2}


def test_a_missing_size_leaves_no_overall():
    sized = pair(timings(t1=1.0), timings(t1=2.0))
    (found,) = score([sized, replace(sized, size_ratio=None)])
    assert (found.speed_up, found.compression, found.overall) == (2.0, None, None)


def test_each_device_engine_and_algorithm_has_a_score_of_its_own():
    one = pair(timings(t1=1.0), timings(t1=2.0))
    others = [replace(one, device="m1"), replace(one, engine="dabnn"), replace(one, algorithm=None)]
    assert len(score([one, *others, one])) == 4


def test_a_model_whose_twin_was_not_timed_counts_nowhere():
    assert score([pair(timings(t1=1.0), {})]) == ()


def test_a_noisy_time_is_the_fastest_only_where_no_other_is_there():
    noisy = {1: Timing(5.0), 2: Timing(3.0, is_stable=False)}
    (found,) = score([pair(noisy, timings(t1=10.0))])
    assert (found.speed_up, found.is_noisy) == (2.0, False)
    (found,) = score([pair({2: noisy[2]}, timings(t1=9.0))])
    assert (found.speed_up, found.is_noisy) == (3.0, True)
