from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.errors import ResultsError
from bibench_deploy.profiling import journal as journal_module
from bibench_deploy.profiling.journal import (
    Block,
    CellKey,
    Header,
    Journal,
    MeasuredArtifact,
    PlannedCell,
    read_results,
    summarize_cell,
)
from bibench_deploy.profiling.statistics import Aggregate

MODEL = CellKey("aaaa", "local", 1)
TWIN = CellKey("bbbb", "local", 1)
RUNTIME = {
    "name": "larq-compute-engine",
    "version": "0.16.0",
    "sha256": "00",
    "binary_kernel": "indirect",
    "float_kernel": "xnnpack",
}
HEADER = Header(
    run="tiny-20250101T000000Z",
    bibench_version="0.1.0",
    command=("bibench", "profile", "out/tiny"),
    preset="quick",
    seed=7,
    started_at="2025-01-01T00:00:00Z",
    environment={"machine": "x86_64", "cores": 2},
    planned=(PlannedCell(MODEL, 3), PlannedCell(TWIN, 3)),
)


def artifact(id_: str, role: str, twin: str | None) -> MeasuredArtifact:
    manifest = {"name": "tiny", "role": role, "size_bytes": 10, "model_sha256": id_ * 16}
    return MeasuredArtifact(id_, "out/tiny", manifest, twin)


def block(key: CellKey, number: int, *samples_ms: float) -> Block:
    return Block(
        key=key,
        block=number,
        runtime=RUNTIME,
        samples_ms=samples_ms or (1.0, 2.0, 3.0),
        warmup_count=10,
        warmup_settled=True,
        other_load=0.01 * number,
        init_ms=1.0 + number,
        peak_memory_mib=50.0 + number,
        note=None,
    )


def begin(journal: Journal) -> None:
    journal.write_header(HEADER)
    journal.write_artifact(artifact("aaaa", "model", "bbbb"))
    journal.write_artifact(artifact("bbbb", "fp32_twin", None))


def write_whole(path: Path) -> None:
    with Journal(path) as journal:
        begin(journal)
        for key, times in ((MODEL, (1.0, 1.01, 1.02)), (TWIN, (2.0, 2.02, 2.04))):
            blocks = [block(key, number, time) for number, time in enumerate(times)]
            for one in blocks:
                journal.write_block(one)
            journal.write_cell(summarize_cell(blocks))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_whole(tmp_path / "run.jsonl")
    results = read_results(tmp_path / "run.jsonl")
    assert results.header == HEADER
    assert list(results.artifacts) == ["aaaa", "bbbb"]
    assert results.artifacts["aaaa"] == artifact("aaaa", "model", "bbbb")
    assert list(results.cells) == [MODEL, TWIN]
    assert results.blocks[1] == block(MODEL, 1, 1.01)
    assert results.cells[MODEL] == summarize_cell([b for b in results.blocks if b.key == MODEL])
    assert results.problems == ()


def test_a_cell_sums_up_its_blocks() -> None:
    cell = summarize_cell([block(MODEL, n, *[10.0 + n / 100] * (n + 1)) for n in range(3)])
    assert cell.latency_ms.p50 == 10.01
    assert (cell.latency_ms.low_ms, cell.latency_ms.high_ms) == (10.0, 10.02)
    assert (cell.block_count, cell.sample_count, cell.warmup_count) == (3, 6, 30)
    assert (cell.init_ms, cell.peak_memory_mib, cell.other_load) == (2.0, 52.0, 0.01)
    assert cell.verdict == "stable"


def test_the_lines_have_the_names_of_the_contract(tmp_path: Path) -> None:
    write_whole(tmp_path / "run.jsonl")
    lines = lines_of(tmp_path / "run.jsonl")
    assert [line["kind"] for line in lines[:4]] == ["header", "artifact", "artifact", "block"]
    assert lines[0]["schema_version"] == 1
    assert lines[0]["planned"][0] == {
        "artifact": "aaaa",
        "device": "local",
        "threads": 1,
        "blocks": 3,
    }
    cell = lines[6]
    assert (cell["kind"], cell["artifact"], cell["threads"]) == ("cell", "aaaa", 1)
    assert cell["latency_ms"].keys() == {"p50", "p90", "low_ms", "high_ms", "mad_ms", "iqr_ms"}


def test_the_speed_up_is_the_twins_time_over_the_models(tmp_path: Path) -> None:
    write_whole(tmp_path / "run.jsonl")
    results = read_results(tmp_path / "run.jsonl")
    assert results.speed_up(results.cells[MODEL]) == pytest.approx(2.02 / 1.01)
    assert results.speed_up(results.cells[TWIN]) is None


def test_every_line_is_on_disk_before_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    synced = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced.append(path.read_bytes().count(b"\n"))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path)
    assert synced == list(range(1, 12))


def test_an_interrupted_run_is_summarised_from_the_blocks_it_has(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with contextlib.suppress(KeyboardInterrupt), Journal(path) as journal:
        begin(journal)
        journal.write_block(block(TWIN, 0, 2.0))
        journal.write_block(block(TWIN, 1, 4.0))
        raise KeyboardInterrupt
    results = read_results(path)
    assert results.cells[TWIN].latency_ms.p50 == 3.0
    assert results.cells[TWIN].verdict == "noisy"
    assert MODEL not in results.cells
    assert results.problems == (f"{path}: interrupted: 2 of 2 cells have not all their blocks",)


def test_a_block_is_kept_that_an_interruption_finds_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt), Journal(path) as journal:
        begin(journal)
        monkeypatch.setattr(os, "fsync", interrupted)
        journal.write_block(block(TWIN, 0, 2.0))
    assert journal.block_count() == 1
    assert len(read_results(path).blocks) == 1
    monkeypatch.undo()
    with Journal(path, resume=True) as journal:
        journal.write_block(block(TWIN, 1, 2.0))
        assert journal.block_count() == 2


def test_a_run_without_a_block_leaves_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path / "run.jsonl") as journal:
        begin(journal)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("precious")
    with pytest.raises(ResultsError, match=r"run\.jsonl exists; go on with it by --resume, or"):
        Journal(tmp_path / "run.jsonl")
    assert (tmp_path / "run.jsonl").read_text() == "precious"


def test_a_full_disk_leaves_the_lines_before_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    with Journal(path) as journal:
        begin(journal)
        journal.write_block(block(MODEL, 0))

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="No space left") as caught:
                journal.write_block(block(MODEL, 1))
        assert caught.value.filename == str(path)
        journal.write_block(block(MODEL, 2))
    assert [one.block for one in read_results(path).blocks] == [0, 2]


def test_a_last_line_that_was_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    write_whole(path)
    path.write_bytes(path.read_bytes()[:-20])
    results = read_results(path)
    assert results.problems == (
        f"{path}, line 11: cut off in the middle; the lines before it are used",
    )
    assert len(results.cells) == 2


# Each example syncs a file to the disk, which may take its time.
@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_file_cut_anywhere_is_read_or_refused_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    write_whole(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    whole_lines = path.read_bytes().count(b"\n")
    if whole_lines == 0:
        with pytest.raises(ResultsError, match="nothing to read"):
            read_results(path)
    else:
        kinds = [line["kind"] for line in map(json.loads, content.splitlines()[:whole_lines])]
        assert len(read_results(path).blocks) == kinds.count("block")


def change(number: int, **fields: Any) -> Any:
    def apply(lines: list[dict[str, Any]]) -> None:
        lines[number - 1].update(fields)

    return apply


def delete(number: int) -> Any:
    def apply(lines: list[dict[str, Any]]) -> None:
        del lines[number - 1]

    return apply


def number_the_target(lines: list[dict[str, Any]]) -> None:
    lines[1]["manifest"]["target"] = -1


def enlarge(lines: list[dict[str, Any]]) -> None:
    lines[1]["manifest"]["size_bytes"] = 10**400


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(1, schema_version=2), "line 1: schema_version 2, this bibench reads 1"),
        (change(1, seed=None), 'line 1: "seed" is missing or of another type'),
        (change(1, planned=["x"]), "line 1: an object is missing"),
        (delete(1), "line 1: a results file has one header"),
        (change(2, kind="header"), "line 2: a results file has one header"),
        (change(2, manifest={"name": "tiny"}), 'line 2: "role" is missing'),
        (number_the_target, 'line 2: "target" is missing or of another type'),
        (enlarge, 'line 2: "size_bytes" is no size of a file'),
        (delete(3), 'line 7: no artifact "bbbb" on a line before'),
        (change(4, kind="blok"), 'line 4: unknown kind "blok"'),
        (change(4, samples_ms=[]), 'line 4: "samples_ms" must be a list of times'),
        (change(4, samples_ms=[1.0, "x"]), 'line 4: "samples_ms" must be a list of times'),
        (change(4, samples_ms=[1.0, -1.0]), 'line 4: "samples_ms" must be a list of times'),
        (change(4, threads=True), 'line 4: "threads" is missing or of another type'),
        (change(7, latency_ms=None), "line 7: an object is missing"),
        (change(7, latency_ms={"p50": "fast"}), 'line 7: "p50" is missing'),
        (change(7, latency_ms={"p50": 0}), 'line 7: "p50" is no time above 0'),
        (change(7, latency_ms={"p50": 1e308}), 'line 7: "p50" is beyond all measure'),
        (change(7, latency_ms={"p50": 10**400}), 'line 7: "p50" is beyond all measure'),
        (change(7, threads=9), "line 7: figures of a cell that has no block"),
    ],
)
def test_damage_is_an_error_that_names_the_line(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "run.jsonl"
    write_whole(path)
    lines = lines_of(path)
    damage(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ResultsError) as caught:
        read_results(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json}", "line 5: no valid JSON"),
        (b"\xff\xfe", "line 5: no valid JSON"),
        (b"[1, 2]", "line 5: not a JSON object"),
        (b'{"kind": NaN}', "line 5: no valid JSON: NaN is no JSON number"),
        (b"", "line 5: no valid JSON"),
    ],
)
def test_a_line_that_is_no_object_is_an_error_that_names_it(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "run.jsonl"
    write_whole(path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:4], line, *lines[4:]]))
    with pytest.raises(ResultsError) as caught:
        read_results(path)
    assert message in str(caught.value)


def test_a_missing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be read: No such file"):
        read_results(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ResultsError, match="nothing to read"):
        read_results(tmp_path / "empty.jsonl")


def test_a_figure_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "run.jsonl") as journal:
        begin(journal)
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.write_block(replace(block(MODEL, 0), init_ms=float("nan")))


def aggregate_block(number: int, mean_ms: float) -> Block:
    aggregate = Aggregate(count=50, mean_ms=mean_ms, min_ms=1.0, max_ms=4.0, std_ms=0.1)
    return replace(block(MODEL, number), samples_ms=(), warmup_settled=None, aggregate=aggregate)


def test_blocks_of_a_runner_that_keeps_no_samples_are_summed_up_without_them(
    tmp_path: Path,
) -> None:
    blocks = [aggregate_block(number, 2.0 + number / 100) for number in range(3)]
    with Journal(tmp_path / "run.jsonl") as journal:
        begin(journal)
        for one in blocks:
            journal.write_block(one)
        journal.write_cell(summarize_cell(blocks))
    results = read_results(tmp_path / "run.jsonl")
    assert results.blocks == tuple(blocks)
    cell = results.cells[MODEL]
    assert (cell.latency_ms.p50, cell.latency_ms.p90, cell.latency_ms.mad_ms) == (2.01, None, None)
    assert (cell.latency_ms.low_ms, cell.latency_ms.high_ms) == (2.0, 2.02)
    assert (cell.sample_count, cell.verdict) == (150, "stable")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregate": None}, '"samples_ms" must be a list of times above 0'),
        ({"samples_ms": [1.0]}, '"samples_ms" must be a list of times above 0'),
        ({"aggregate": {"count": 0, "mean_ms": 1.0}}, "must count at least one time above 0"),
        ({"aggregate": {"count": 5, "mean_ms": -1.0}}, "must count at least one time above 0"),
        ({"aggregate": {"count": 5}}, '"mean_ms" is missing'),
        ({"aggregate": 3}, "an object is missing"),
        ({"aggregate": None, "samples_ms": [1.0]}, "a block with samples among blocks"),
    ],
)
def test_an_aggregate_that_cannot_be_is_damage(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with Journal(tmp_path / "run.jsonl") as journal:
        begin(journal)
        journal.write_block(aggregate_block(0, 2.0))
        journal.write_block(aggregate_block(1, 2.0))
    lines = lines_of(tmp_path / "run.jsonl")
    lines[-1].update(change)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError) as caught:
        read_results(tmp_path / "run.jsonl")
    assert message in str(caught.value)


def test_what_an_emulated_device_measured_is_never_a_pass(tmp_path: Path) -> None:
    blocks = [block(MODEL, number, 1.0, 1.0) for number in range(3)]
    cell = summarize_cell(blocks, is_emulated=True)
    assert (cell.verdict, "no figure of any hardware" in cell.reason) == ("emulated", True)
    # Of a file that was cut off before the cell's own line, too.
    with Journal(tmp_path / "run.jsonl") as journal:
        journal.write_header(replace(HEADER, environment={"is_emulated": True}))
        journal.write_artifact(artifact("aaaa", "model", None))
        for one in blocks:
            journal.write_block(one)
    assert read_results(tmp_path / "run.jsonl").cells[MODEL].verdict == "emulated"


def test_a_cell_needs_a_block() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        summarize_cell([])


def test_the_contract_document_names_every_field(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    write_whole(tmp_path / "run.jsonl")
    names = {name for line in lines_of(tmp_path / "run.jsonl") for name in line} - {"kind"}
    assert {name for name in names if f"`{name}`" not in text} == set()
    assert journal_module.SCHEMA_VERSION == 1
