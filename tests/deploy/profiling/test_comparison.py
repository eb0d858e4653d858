from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bibench_deploy.errors import ResultsError
from bibench_deploy.profiling.comparison import Comparison, LatencyChange, Outcome, compare_results
from bibench_deploy.profiling.journal import (
    Block,
    CellKey,
    Header,
    Journal,
    MeasuredArtifact,
    PlannedCell,
    Results,
    read_results,
)

Sweep = Callable[..., Results]
CPU = {"machine": "aarch64", "cpu": "Cortex-A72"}
BLOCKS = 9


def block(key: CellKey, number: int, middle_ms: float, other_load: float) -> Block:
    return Block(
        key=key,
        block=number,
        runtime={"name": "lce", "version": "0.16.0"},
        samples_ms=(middle_ms, middle_ms, middle_ms),
        warmup_count=3,
        warmup_settled=True,
        other_load=other_load,
        init_ms=1.0,
        peak_memory_mib=None,
        note=None,
    )


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """sweep({(name, threads): p50}): a results file in which blocks scatter by about 0.3 %."""

    def write(
        cells: dict[tuple[str, int], float],
        *,
        scatter: float = 0.003,
        load: float = 0.01,
        size_bytes: int = 1000,
        environment: dict[str, Any] = CPU,
        preset: str = "standard",
        blocks: int = BLOCKS,
        sha: str = "a",
        names: dict[str, str] | None = None,
    ) -> Results:
        ids = {name: f"{sha}{name}" for name, _ in cells}
        planned = [
            PlannedCell(CellKey(ids[name], "pi4", threads), BLOCKS) for name, threads in cells
        ]
        header = Header("run", "0.1.0", ("bibench",), preset, 0, "", environment, tuple(planned))
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        generator = np.random.default_rng(len(cells))
        with Journal(path) as journal:
            journal.write_header(header)
            for name, id_ in ids.items():
                manifest = {
                    "name": (names or {}).get(name, name),
                    "role": "model",
                    "target": "lce",
                    "size_bytes": size_bytes,
                    "model_sha256": id_,
                }
                journal.write_artifact(MeasuredArtifact(id_, "out", manifest, None))
            for (name, threads), p50 in cells.items():
                factors = 1 + scatter * np.linspace(-1, 1, blocks)
                for number, factor in enumerate(generator.permutation(factors)):
                    key = CellKey(ids[name], "pi4", threads)
                    journal.write_block(block(key, number, float(p50 * factor), load))
        return read_results(path)

    return write


def only(comparison: Comparison) -> LatencyChange:
    (change,) = comparison.latencies
    return change


NET = ("net", 1)


def test_the_same_figures_are_no_change(sweep: Sweep) -> None:
    found = compare_results(sweep({NET: 10.0}), sweep({NET: 10.0}))
    assert found.outcome is Outcome.SAME
    assert only(found).change == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("p50", "outcome", "verdict"),
    [(11.0, Outcome.WORSE, "slower"), (9.0, Outcome.BETTER, "faster")],
)
def test_ten_percent_count_either_way(
    sweep: Sweep, p50: float, outcome: Outcome, verdict: str
) -> None:
    found = compare_results(sweep({NET: 10.0}), sweep({NET: p50}))
    assert found.outcome is outcome
    assert only(found).verdict == verdict
    low, high = only(found).interval or (0, 0)
    assert low < only(found).change < high
    assert not low <= 0 <= high


def test_a_change_below_the_threshold_does_not_count_though_it_is_certain(sweep: Sweep) -> None:
    found = compare_results(sweep({NET: 10.0}), sweep({NET: 10.2}))
    assert only(found).interval is not None
    assert only(found).interval[0] > 0
    assert found.outcome is Outcome.SAME
    assert only(found).reason == "within the limit of 3.0 %"


def test_the_threshold_can_be_chosen(sweep: Sweep) -> None:
    found = compare_results(sweep({NET: 10.0}), sweep({NET: 10.2}), threshold=0.01)
    assert found.outcome is Outcome.WORSE


def test_a_cells_own_noise_is_a_limit_too(sweep: Sweep) -> None:
    # Blocks within ±3 %: the interval of the nine spans 4.5 %, so 4 % are within it.
    old, new = sweep({NET: 10.0}, scatter=0.03), sweep({NET: 10.4}, scatter=0.03)
    found = compare_results(old, new, threshold=0.0)
    assert found.outcome is Outcome.SAME
    assert only(found).limit == pytest.approx(0.045, abs=1e-3)


def test_an_interval_that_holds_zero_is_no_change_whatever_the_threshold(sweep: Sweep) -> None:
    old, new = sweep({NET: 10.0}, scatter=0.02), sweep({NET: 10.05}, scatter=0.02)
    found = compare_results(old, new, threshold=0.0)
    assert only(found).reason == "its 95 % interval holds 0"


@pytest.mark.parametrize("which", ["OLD", "NEW"])
def test_a_noisy_side_is_inconclusive_however_large_the_change(sweep: Sweep, which: str) -> None:
    loads = {"OLD": {"load": 0.5}, "NEW": {}} if which == "OLD" else {"OLD": {}, "NEW": {"load": 1}}
    found = compare_results(sweep({NET: 10.0}, **loads["OLD"]), sweep({NET: 99.0}, **loads["NEW"]))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert only(found).reason.startswith(f"{which} is noisy: other processes used")


def test_another_processor_is_inconclusive(sweep: Sweep) -> None:
    other = {"machine": "aarch64", "cpu": "Cortex-A76"}
    found = compare_results(sweep({NET: 10.0}), sweep({NET: 20.0}, environment=other))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert only(found).reason == "measured on another processor: Cortex-A72, then Cortex-A76"


def test_a_cell_that_is_gone_is_inconclusive_and_a_new_one_is_not(sweep: Sweep) -> None:
    one, two = sweep({NET: 10.0}), sweep({NET: 10.0, ("net", 2): 6.0})
    found = compare_results(two, one)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.latencies[1].reason == "NEW does not have it"
    assert compare_results(one, two).outcome is Outcome.SAME


def test_an_interrupted_sweep_is_inconclusive_and_its_problem_is_kept(sweep: Sweep) -> None:
    found = compare_results(sweep({NET: 10.0}), sweep({NET: 10.0}, blocks=1))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "interrupted" in found.problems[0]


def test_slower_outweighs_inconclusive(sweep: Sweep) -> None:
    old = sweep({NET: 10.0, ("net", 2): 6.0})
    assert compare_results(old, sweep({NET: 12.0})).outcome is Outcome.WORSE


def test_a_larger_file_counts_and_a_little_larger_one_does_not(sweep: Sweep) -> None:
    old = sweep({NET: 10.0})
    larger = compare_results(old, sweep({NET: 10.0}, size_bytes=1100, sha="b"))
    assert larger.outcome is Outcome.WORSE
    assert (larger.sizes[0].verdict, only(larger).verdict) == ("larger", "no change")
    assert compare_results(old, sweep({NET: 10.0}, size_bytes=1020)).outcome is Outcome.SAME
    assert compare_results(old, sweep({NET: 10.0}, size_bytes=900)).sizes[0].verdict == "smaller"


def test_what_differs_between_the_sweeps_is_said(sweep: Sweep) -> None:
    other = CPU | {"governor": "powersave"}
    found = compare_results(
        sweep({NET: 10.0}), sweep({NET: 10.0}, environment=other, preset="quick")
    )
    assert found.notes == ("governor: None, then powersave", "preset: standard, then quick")


def test_nothing_in_common_is_an_error_that_says_what_is_there(sweep: Sweep) -> None:
    with pytest.raises(ResultsError, match=r"no cell in common: net on pi4 at 1 against other"):
        compare_results(sweep({NET: 10.0}), sweep({("other", 1): 10.0}))


def test_two_models_of_one_name_are_an_error(sweep: Sweep) -> None:
    twice = sweep({NET: 10.0, ("copy", 1): 10.0}, names={"copy": "net"})
    with pytest.raises(ResultsError, match="two artifacts are called net"):
        compare_results(twice, twice)


def test_steady_sweeps_of_the_same_machine_are_seldom_called_changed(sweep: Sweep) -> None:
    generator = np.random.default_rng(3)
    old = sweep({NET: 10.0})
    (cell,) = old.cells
    called = 0
    for _ in range(100):
        middles = [generator.normal(10.0, 0.1, BLOCKS) for _ in range(2)]
        sides = [
            replace(
                old,
                blocks=tuple(block(cell, n, float(ms), 0.01) for n, ms in enumerate(side)),
                cells={
                    cell: replace(
                        old.cells[cell],
                        latency_ms=replace(old.cells[cell].latency_ms, p50=float(np.median(side))),
                    )
                },
            )
            for side in middles
        ]
        called += compare_results(*sides).outcome is not Outcome.SAME
    assert called <= 2
