"""What lce_benchmark_model prints, in each of its forms, is read; recorded outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling.operators import OperatorTime
from bibench_deploy.profiling.presets import find_preset
from bibench_deploy.profiling.runners.lce_benchmark_model import LceBenchmarkModelRunner
from bibench_deploy.profiling.statistics import Aggregate

FILES = {"model": Path("model.tflite"), "program": Path("runtimes/0123abcd")}
PLAIN = """\
STARTING!
Log parameter values verbosely: [0]
Graph: [model.tflite]
Loaded model model.tflite
The input model file size (MB): 4.20342
Initialized session in 17.187ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=3512391
Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798
Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
"""  # noqa: E501 - as printed
# Newer versions mark levels, give quantiles, and write to stderr.
MARKED = """\
INFO: STARTING!
INFO: Initialized session in 1.2ms.
INFO: count=212 first=2400 curr=2310 min=2290 max=2710 avg=2330.5 std=41 p5=2295 median=2318 p95=2402
INFO: count=50 first=2311 curr=2309 min=2288 max=2560 avg=2325.1 std=38 p5=2292 median=2316 p95=2399
INFO: Inference timings in us: Init: 1200, First inference: 2400, Warmup (avg): 2330.5, Inference (avg): 2325.1
INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.25
"""  # noqa: E501 - as printed


@pytest.fixture
def tiny(tmp_path: Path, make_lce_artifact: Callable[..., Artifact]) -> Artifact:
    return make_lce_artifact(tmp_path / "tiny")


def test_the_plain_form_gives_an_aggregate_and_no_samples(tiny: Artifact) -> None:
    measured = LceBenchmarkModelRunner().read(CommandResult(0, PLAIN, ""), tiny, FILES, 1)
    assert measured.samples_ms == ()
    assert measured.aggregate == Aggregate(
        count=50, mean_ms=2950.34, min_ms=2727.568, max_ms=3189.954, std_ms=109.798
    )
    assert (measured.warmup_count, measured.warmup_settled) == (1, None)
    assert measured.init_ms == 17.187
    assert measured.note is not None
    assert "keeps no samples" in measured.note
    # What the memory line gives is a difference, not a peak.
    assert measured.peak_memory_mib is None
    assert measured.runtime == {
        "name": "lce_benchmark_model",
        "sha256": "0123abcd",
        "binary_kernel": "default",
        "float_kernel": "xnnpack",
    }


def test_the_form_with_levels_and_quantiles_is_read_from_stderr(tiny: Artifact) -> None:
    measured = LceBenchmarkModelRunner().read(CommandResult(0, "", MARKED), tiny, FILES, 4)
    assert measured.aggregate is not None
    assert (measured.aggregate.median_ms, measured.aggregate.mean_ms) == (2.316, 2.3251)
    assert (measured.warmup_count, measured.note) == (212, None)
    assert measured.peak_memory_mib == 12.25


# A model so slow that one run is all there was time for.
SLOW = """\
count=1 curr=3512391
count=1 curr=3490000
Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 3.49e+06
"""  # noqa: E501 - as printed
TABLES = """\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    0.066\t    0.060\t 100.0%\t 100.0%\t     0.000\t        1\tAllocateTensors/0
Number of nodes executed: 1
"""  # noqa: E501 - as printed


def test_a_single_run_has_a_mean_and_no_spread(tiny: Artifact) -> None:
    measured = LceBenchmarkModelRunner().read(CommandResult(0, SLOW, ""), tiny, FILES, 1)
    assert measured.aggregate == Aggregate(count=1, mean_ms=3490.0)
    assert measured.warmup_count == 1


def test_tables_of_a_profile_around_the_figures_are_passed_over(tiny: Artifact) -> None:
    printed = TABLES + PLAIN + TABLES
    measured = LceBenchmarkModelRunner().read(CommandResult(0, printed, ""), tiny, FILES, 1)
    assert measured.aggregate is not None
    assert measured.aggregate.count == 50


def test_a_float_model_runs_no_binary_kernel(tiny: Artifact) -> None:
    twin = Artifact.load(tiny.directory / "fp32")
    measured = LceBenchmarkModelRunner().read(CommandResult(0, PLAIN, ""), twin, FILES, 1)
    assert measured.runtime["binary_kernel"] is None


@pytest.mark.parametrize("line", ["count=50", "Inference timings"])
def test_output_that_was_cut_off_is_an_error(tiny: Artifact, line: str) -> None:
    printed = PLAIN.partition(line)[0]
    with pytest.raises(DeviceError, match="something else than its result"):
        LceBenchmarkModelRunner().read(CommandResult(0, printed, ""), tiny, FILES, 1)


def test_the_command_uses_the_kernel_that_is_fast_on_arm() -> None:
    files = {"model": "/board/model", "program": "/board/program"}
    command = LceBenchmarkModelRunner().command("python3", files, 4, find_preset("quick"), 0)
    assert command == [
        "/board/program",
        "--graph=/board/model",
        "--num_threads=4",
        "--use_xnnpack=true",
        "--use_indirect_bgemm=false",
        "--warmup_min_secs=2.0",
        "--num_runs=20",
        "--min_secs=0.5",
        "--max_secs=10.0",
    ]


def test_memory_is_asked_for_in_its_own_pass_alone() -> None:
    runner, files = (
        LceBenchmarkModelRunner(),
        {"model": "/board/model", "program": "/board/program"},
    )
    asks = "--report_peak_memory_footprint=true"
    assert asks in runner.memory_command("python3", files, 2, 0)
    assert asks not in runner.command("python3", files, 2, find_preset("quick"), 0)


# TensorFlow Lite's profiler: two summaries, of the start and of the timed runs.
SUMMARY = """\
Profiling Info for Benchmark Initialization:
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\t         AllocateTensors\t        1\t     0.060\t   100.000%\t   100.000%\t     0.000\t        1

Timings (microseconds): count=1 curr=60
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t             LceQuantize\t    0.003\t    0.003\t  1.200%\t  1.200%\t     0.000\t        1\tq:0
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]
\t TfLiteXNNPackDelegate\t        2\t     1.5e-01\t    60.000%\t    60.000%\t     0.000\t        2
\t          LceBconv2d\t       16\t     2.100\t    38.800%\t    98.800%\t     0.000\t       16

Timings (microseconds): count=20 first=250 curr=251 min=249 max=260 avg=250.5 std=2
"""  # noqa: E501 - as printed


@pytest.mark.parametrize("is_marked", [False, True])
def test_operators_are_those_of_the_timed_runs(tiny: Artifact, is_marked: bool) -> None:
    printed = PLAIN + SUMMARY
    result = CommandResult(0, "" if is_marked else printed, printed if is_marked else "")
    assert LceBenchmarkModelRunner().read_operators(result, tiny) == (
        OperatorTime("LceBconv2d", 16, 2.1),
        OperatorTime("TfLiteXNNPackDelegate", 2, 0.15),
    )


def test_operators_are_asked_for_by_the_profiler_of_the_program() -> None:
    command = LceBenchmarkModelRunner().operators_command(
        "python3", {"model": "/board/model", "program": "/board/program"}, 2, 0
    )
    assert {"--enable_op_profiling=true", "--num_threads=2", "--num_runs=20"} <= {*command}
    assert not LceBenchmarkModelRunner().no_operators


@pytest.mark.parametrize(
    "printed", ["", PLAIN, SUMMARY.replace("16\t     2.1", "x\t     2.1"), TABLES,
                SUMMARY.partition("\t TfLite")[0]]
)  # fmt: skip
def test_no_table_of_operators_is_an_error(tiny: Artifact, printed: str) -> None:
    with pytest.raises(DeviceError, match="something else than its result"):
        LceBenchmarkModelRunner().read_operators(CommandResult(0, printed, ""), tiny)
