"""What benchmark_single_model prints is read; outputs recorded from the real program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bibench_deploy.artifact import Artifact, file_entry, write_manifest
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling.presets import find_preset
from bibench_deploy.profiling.runners.dabnn import DabnnRunner
from bibench_deploy.profiling.session import plan_profile
from bibench_deploy.profiling.statistics import Aggregate
from bibench_deploy.targets.dabnn.emitter import Emitter, Window
from bibench_deploy.targets.dabnn.flatbuffer import write_dab
from bibench_deploy.targets.dabnn.schema import DabModel, Operator

PRINTED = """\
-------------------------------------------------------
Benchmark             Time             CPU   Iterations
-------------------------------------------------------
single_model   13760361 ns      6601909 ns          107
"""
ABORTED = """\
2026-11-25T22:36:26+00:00
Running ./benchmark_single_model
terminate called after throwing an instance of 'std::runtime_error'
  what():  top_blob.c % 128 == 0 is not satisfied! 64
"""
FILES = {"model": Path("model.dab"), "program": Path("runtimes/dabnn/aarch64/0123abcd")}


def exported(folder: Path, is_binary: bool = True) -> Artifact:
    folder.mkdir()
    emitter = Emitter()
    source = emitter.place("input", (4, 4, 4))
    ones = np.ones((4, 1, 1, 4), np.float32)
    if is_binary:
        filters = emitter.filters(ones, (1, 1))
        emitter.convolve(Operator.BinConv2D, source, filters, Window((1, 1)))
    else:
        emitter.convolve(Operator.FpConv2D, source, emitter.tensor("w", ones), Window((1, 1)))
    path = folder / "model.dab"
    tensors = tuple(emitter.tensors)
    write_dab(DabModel("input", (1, 4, 4, 4), tuple(emitter.layers), tensors), path)
    entry = file_entry(path)
    return write_manifest(
        folder,
        {
            "schema_version": 1, "kind": "bibench-artifact", "name": "tiny", "target": "dabnn",
            "role": "model", "files": {"model": entry}, "model_sha256": entry["sha256"],
            "size_bytes": entry["size_bytes"],
        },
    )  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    return exported(tmp_path / "tiny")


def test_the_wall_clock_mean_is_an_aggregate(tiny: Artifact) -> None:
    measured = DabnnRunner().read(CommandResult(0, PRINTED, ""), tiny, FILES, 1)
    assert measured.aggregate == Aggregate(count=107, mean_ms=13.760361)
    assert (measured.samples_ms, measured.init_ms, measured.warmup_settled) == ((), None, None)
    assert measured.runtime == {
        "name": "dabnn", "sha256": "0123abcd", "binary_kernel": "dabnn", "float_kernel": "eigen",
    }  # fmt: skip
    assert measured.note is None


def test_a_float_model_runs_no_binary_kernel(tmp_path: Path) -> None:
    twin = exported(tmp_path / "twin", is_binary=False)
    measured = DabnnRunner().read(CommandResult(0, PRINTED, ""), twin, FILES, 1)
    assert measured.runtime["binary_kernel"] is None


@pytest.mark.parametrize(
    ("line", "mean_ms"),
    [
        ("single_model        98.7 ms         98.1 ms            7", 98.7),
        ("single_model  4.5e+04 us  4.4e+04 us  15", 45.0),
        ("single_model        1.25 s          1.2 s             1", 1250.0),
    ],
)
def test_every_unit_of_google_benchmark_is_read(line: str, mean_ms: float, tiny: Artifact) -> None:
    measured = DabnnRunner().read(CommandResult(0, f"{line}\n", ""), tiny, FILES, 1)
    assert measured.aggregate is not None
    assert measured.aggregate.mean_ms == pytest.approx(mean_ms)


@pytest.mark.parametrize(
    "printed",
    ["single_model_mean 1 ns 1 ns 3\n", "single_model  12 ns\n", "single_model e ns 1 ns 1\n"],
)
def test_other_lines_are_no_result(printed: str, tiny: Artifact) -> None:
    with pytest.raises(DeviceError, match="something else than its result"):
        DabnnRunner().read(CommandResult(0, printed, ""), tiny, FILES, 1)


def test_what_the_engine_says_before_it_aborts_is_kept(tiny: Artifact) -> None:
    with pytest.raises(DeviceError, match=r"top_blob.c % 128 == 0 is not satisfied! 64"):
        DabnnRunner().read(CommandResult(134, "", ABORTED), tiny, FILES, 1)


def test_on_x86_the_figure_is_none_for_a_board(tiny: Artifact) -> None:
    files = FILES | {"program": Path("runtimes/dabnn/x86-64/0123abcd")}
    measured = DabnnRunner().read(CommandResult(0, PRINTED, ""), tiny, files, 1)
    assert measured.note is not None
    assert "no fast kernel for x86-64" in measured.note


def test_the_command_gives_the_model_and_how_long_to_measure() -> None:
    files = {"model": "/board/model", "program": "/board/program"}
    command = DabnnRunner().command("python3", files, 1, find_preset("quick"), 0)
    assert command == [
        "/board/program", "/board/model", "--benchmark_min_time=0.5", "--benchmark_color=false",
    ]  # fmt: skip


def test_more_threads_than_one_are_refused_with_the_reason(tiny: Artifact) -> None:
    with pytest.raises(DeviceError) as raised:
        plan_profile([tiny.directory], threads=(1, 4))
    assert str(raised.value) == (
        "tiny for dabnn cannot run with --threads 1,4: daBNN runs on one thread alone, and its "
        "benchmark has no option for more; give --threads 1"
    )
    assert {cell.key.threads for cell in plan_profile([tiny.directory], threads=(1,)).cells} == {1}
