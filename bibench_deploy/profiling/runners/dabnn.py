"""daBNN's benchmark_single_model: google-benchmark around one model, on one thread.

The program feeds a model of numbers that are whatever lay in memory, runs it as often as it
takes to fill the time, and prints one line of means:

    single_model   13760361 ns    6601909 ns        107

Wall-clock time of one inference, processor time of one, inferences. It keeps no sample and no
warm-up of its own: google-benchmark's shorter tries before the timed one are the warm-up.
Source: benchmark/benchmark_single_model.cpp of dabnn, November 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.devices.runtimes import Program
from bibench_deploy.profiling.runners._program import ProgramRunner
from bibench_deploy.profiling.runners._runner import Measured, failure, garbage
from bibench_deploy.profiling.statistics import Aggregate
from bibench_deploy.targets.dabnn.flatbuffer import read_dab
from bibench_deploy.targets.dabnn.schema import Operator

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.presets import Preset

_BUILD = "target benchmark_single_model of https://github.com/JDAI-CV/dabnn, built for it"
_ABIS = ("aarch64", "aarch32", "android-arm64", "x86-64")
_LINE = re.compile(
    r"^single_model\s+([\d.e+]+) (ns|us|ms|s)\s+[\d.e+]+ (?:ns|us|ms|s)\s+(\d+)\s*$", re.MULTILINE
)
_IN_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}
_NOTE_X86 = "daBNN has no fast kernel for x86-64: a check of the file, not a figure for a board"


class DabnnRunner(ProgramRunner):
    """Times .dab files in processes of benchmark_single_model."""

    name = "dabnn"
    target = "dabnn"
    program = Program("dabnn", dict.fromkeys(_ABIS, _BUILD))
    one_thread = "daBNN runs on one thread alone, and its benchmark has no option for more"

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        """Give the command line; what is after the model are google-benchmark's own options."""
        if threads != 1:
            raise ValueError(f"{threads} threads: {self.one_thread}")
        return [
            files["program"],
            files["model"],
            f"--benchmark_min_time={preset.min_s}",
            "--benchmark_color=false",
        ]

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        """Read google-benchmark's table."""
        if result.exit_code != 0:
            raise failure(result, artifact)
        found = _LINE.search(result.stdout)
        if found is None:
            raise garbage(result, artifact)
        time, unit, count = found.groups()
        try:
            aggregate = Aggregate(count=int(count), mean_ms=float(time) * _IN_MS[unit])
        except ValueError as error:
            raise garbage(result, artifact) from error
        operators = {layer.operator for layer in read_dab(artifact.model_path).layers}
        is_x86 = files["program"].parent.name == "x86-64"
        return Measured(
            samples_ms=(),
            warmup_count=0,
            warmup_settled=None,
            other_load=None,
            init_ms=None,
            peak_memory_mib=None,
            runtime={
                "name": "dabnn",
                "sha256": files["program"].name,
                "binary_kernel": "dabnn" if Operator.BinConv2D in operators else None,
                "float_kernel": "eigen",
            },
            note=_NOTE_X86 if is_x86 else None,
            aggregate=aggregate,
        )


RUNNER = DabnnRunner
