"""Larq Compute Engine's lce_benchmark_model, the program that LCE is timed with on ARM.

It is TensorFlow Lite's benchmark_model with LCE's operators, and keeps no samples: it prints
count, mean, shortest, longest and standard deviation. On ARM, LceBconv2d runs LCE's default
kernel, written by hand for NEON, on all threads; every other operation runs in XNNPACK.

Flags and output: tensorflow/lite/tools/benchmark, and larq_compute_engine/tflite/benchmark of
release 0.16.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.devices.runtimes import Program, find_program, missing_program
from bibench_deploy.profiling.runners._runner import Measured, Runner, failure, garbage
from bibench_deploy.profiling.runners.lce import FLOAT_KERNEL, is_binarized
from bibench_deploy.profiling.statistics import Aggregate

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment
    from bibench_deploy.profiling.presets import Preset

BINARY_KERNEL = "default"
_RELEASES = "https://github.com/larq/compute-engine/releases"
_ASSETS = {
    "aarch64": "lce_benchmark_model_aarch64",
    "aarch32": "lce_benchmark_model_aarch32",
    "android-arm64": "lce_benchmark_model_android_arm64",
}
_NOTE = "lce_benchmark_model keeps no samples: p50 is the median of its processes' means"
_NUMBER = r"[-+.\deE]+"


class LceBenchmarkModelRunner(Runner):
    """Times .tflite files in processes of lce_benchmark_model."""

    name = "lce_benchmark_model"
    target = "lce"
    program = Program(
        "lce", {abi: f"the asset {asset} of {_RELEASES}" for abi, asset in _ASSETS.items()}
    )

    def obstacle(self, environment: Environment) -> str | None:
        """The program must have been added for this ABI."""
        assert self.program is not None
        if find_program(self.program, environment.abi) is None:
            return missing_program(self.program, environment.abi)
        return None

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """The model, and the program."""
        assert self.program is not None
        kept = find_program(self.program, environment.abi)
        assert kept is not None, "asked for where there is an obstacle"
        return {"model": artifact.model_path, "program": kept.path}

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        """Give the command line; its warm-up is by time alone, so it takes the longest."""
        return [
            files["program"],
            f"--graph={files['model']}",
            f"--num_threads={threads}",
            f"--warmup_min_secs={preset.warmup_max_s}",
            f"--num_runs={preset.min_runs}",
            f"--min_secs={preset.min_s}",
            f"--max_secs={preset.max_s}",
            "--use_xnnpack=true",
            "--use_indirect_bgemm=false",
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


def _ms(found: Mapping[str, str], name: str) -> float | None:
    return float(found[name]) / 1000 if name in found else None


RUNNER = LceBenchmarkModelRunner
