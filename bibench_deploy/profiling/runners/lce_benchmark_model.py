"""Larq Compute Engine's lce_benchmark_model, the program that LCE is timed with on ARM.

It is TensorFlow Lite's benchmark_model with LCE's operators, and keeps no samples: it prints
count, mean, shortest, longest and standard deviation. On ARM, LceBconv2d runs LCE's default
kernel, written by hand for NEON, on all threads; every other operation runs in XNNPACK.

Flags and output: tensorflow/lite/tools/benchmark, and larq_compute_engine/tflite/benchmark of
release 0.16.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.devices.runtimes import Program
from bibench_deploy.profiling.operators import INFERENCES, OperatorTime
from bibench_deploy.profiling.presets import MEMORY_PASS
from bibench_deploy.profiling.runners._program import ProgramRunner
from bibench_deploy.profiling.runners._runner import Measured, failure, garbage
from bibench_deploy.profiling.runners.lce import FLOAT_KERNEL, is_binarized
from bibench_deploy.profiling.statistics import Aggregate

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.presets import Preset

BINARY_KERNEL = "default"
_RELEASES = "https://github.com/larq/compute-engine/releases"
_ASSETS = {
    "aarch64": "lce_benchmark_model_aarch64",
    "aarch32": "lce_benchmark_model_aarch32",
    "android-arm64": "lce_benchmark_model_android_arm64",
}
_NOTE = "lce_benchmark_model keeps no samples: p50 is the median of its processes' means"
# Of the table that sums by type; the one above it, node by node, writes "[node type]".
_HEADING = "[Node type]"
# The program's own 50 ms would miss most of a small model's run.
_WATCH_MS = 5
_NUMBER = r"[-+.\deE]+"


class LceBenchmarkModelRunner(ProgramRunner):
    """Times .tflite files in processes of lce_benchmark_model."""

    name = "lce_benchmark_model"
    target = "lce"
    no_operators = ""
    program = Program(
        "lce", {abi: f"the asset {asset} of {_RELEASES}" for abi, asset in _ASSETS.items()}
    )

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        """Give the command line; its warm-up is by time alone, so it takes the longest."""
        return [
            *_model_words(files, threads),
            f"--warmup_min_secs={preset.warmup_max_s}",
            f"--num_runs={preset.min_runs}",
            f"--min_secs={preset.min_s}",
            f"--max_secs={preset.max_s}",
        ]

    def memory_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command line of a few inferences, with the program's own watch on memory."""
        return [
            *self.command(python, files, threads, MEMORY_PASS, seed),
            "--report_peak_memory_footprint=true",
            f"--memory_footprint_check_interval_ms={_WATCH_MS}",
        ]

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        """Read the log lines, which some versions write to stderr."""
        if result.exit_code != 0:
            raise failure(result, artifact)
        printed = f"{result.stdout}\n{result.stderr}"
        # One line after the warm-up, one after the timed runs.
        counts = [
            dict(re.findall(rf"(\w+)=({_NUMBER})", line))
            for line in printed.splitlines()
            if re.match(r"(INFO: )?count=", line)
        ]
        try:
            warmup, timed = counts[0], counts[-1]
            [init_us] = re.findall(rf"timings in us: Init: ({_NUMBER})", printed)
            [mean_us] = re.findall(rf"Inference \(avg\): ({_NUMBER})", printed)
            peak = re.findall(rf"Overall peak memory footprint \(MB\).*: ({_NUMBER})", printed)
            aggregate = Aggregate(
                count=int(timed["count"]),
                mean_ms=float(mean_us) / 1000,
                median_ms=_ms(timed, "median"),
                min_ms=_ms(timed, "min"),
                max_ms=_ms(timed, "max"),
                std_ms=_ms(timed, "std"),
            )
            return Measured(
                samples_ms=(),
                warmup_count=int(warmup["count"]) if len(counts) > 1 else 0,
                warmup_settled=None,
                other_load=None,
                init_ms=float(init_us) / 1000,
                peak_memory_mib=float(peak[0]) if peak else None,
                runtime={
                    "name": "lce_benchmark_model",
                    "sha256": files["program"].name,
                    "binary_kernel": BINARY_KERNEL if is_binarized(artifact) else None,
                    "float_kernel": FLOAT_KERNEL,
                },
                note=_NOTE if aggregate.median_ms is None else None,
                aggregate=aggregate,
            )
        except (ValueError, KeyError, IndexError) as error:
            raise garbage(result, artifact) from error

    def operators_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command line under TensorFlow Lite's own profiler."""
        return [
            *_model_words(files, threads),
            "--warmup_runs=1",
            "--warmup_min_secs=0",
            f"--num_runs={INFERENCES}",
            "--min_secs=0",
            "--enable_op_profiling=true",
        ]

    def read_operators(self, result: CommandResult, artifact: Artifact) -> tuple[OperatorTime, ...]:
        """Read the last table by type of operator: the one before it is of the start."""
        if result.exit_code != 0:
            raise failure(result, artifact)
        rows = [line.split("\t") for line in f"{result.stdout}\n{result.stderr}".splitlines()]
        try:
            first = max(at for at, row in enumerate(rows) if _HEADING in _words(row))
            names = _words(rows[first])
            found = []
            for row in rows[first + 1 :]:
                if len(row) != len(rows[first]):
                    break
                entry = dict(zip(names, _words(row), strict=True))
                found.append(
                    OperatorTime(entry[_HEADING], int(entry["[count]"]), float(entry["[avg ms]"]))
                )
        except (ValueError, KeyError) as error:
            raise garbage(result, artifact) from error
        if not found:
            raise garbage(result, artifact)
        return tuple(sorted(found, key=lambda operator: -operator.ms))


def _model_words(files: Mapping[str, str], threads: int) -> list[str]:
    return [
        files["program"],
        f"--graph={files['model']}",
        f"--num_threads={threads}",
        "--use_xnnpack=true",
        "--use_indirect_bgemm=false",
    ]


def _words(row: Sequence[str]) -> list[str]:
    return [word.strip() for word in row]


def _ms(found: Mapping[str, str], name: str) -> float | None:
    return float(found[name]) / 1000 if name in found else None


RUNNER = LceBenchmarkModelRunner
