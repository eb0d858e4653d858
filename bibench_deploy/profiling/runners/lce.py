"""Larq Compute Engine's interpreter from Python, by targets/lce/run_model.py.

Kernels: LceBconv2d runs `use_indirect_bgemm`, and every other operation runs in XNNPACK, in
binarized models and in float ones alike, so that a model and its FP32 twin differ in their
binary layers only. docs/method.md has the measurements behind both choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.profiling.presets import MEMORY_PASS
from bibench_deploy.profiling.runners._runner import (
    NO_PYTHON,
    Measured,
    Runner,
    failure,
    garbage,
    printed_json,
)
from bibench_deploy.targets.lce import run_model

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment
    from bibench_deploy.profiling.presets import Preset

BINARY_KERNEL = "indirect"
FLOAT_KERNEL = "xnnpack"
# The name of the custom operator, as it stands in the flatbuffer.
_BINARY_OPERATOR = b"LceBconv2d"
# Where larq-compute-engine has wheels, as of release 0.16.0.
_ABIS = ("x86-64", "macos-arm64")


class LceRunner(Runner):
    """Times .tflite files in processes of run_model.py."""

    name = "lce"
    target = "lce"

    def obstacle(self, environment: Environment) -> str | None:
        """The package has wheels for x86-64 Linux and for Apple silicon only."""
        if environment.abi not in _ABIS:
            return f"larq-compute-engine has no wheel for {environment.abi or 'this device'}"
        if environment.python is None:
            return NO_PYTHON
        if environment.package("larq-compute-engine") is None:
            return (
                "its Python has no larq-compute-engine; run there: "
                'python -m pip install larq-compute-engine "numpy<2"'
            )
        return None

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """The model, and the self-contained runner script."""
        return {"model": artifact.model_path, "script": Path(run_model.__file__)}

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        """Give the command line of run_model.py."""
        return [
            python,
            files["script"],
            *("--model", files["model"]),
            *("--threads", str(threads)),
            *("--kernel", BINARY_KERNEL),
            "--xnnpack",
            *("--warmup-min-s", str(preset.warmup_min_s)),
            *("--warmup-max-s", str(preset.warmup_max_s)),
            *("--min-runs", str(preset.min_runs)),
            *("--min-seconds", str(preset.min_s)),
            *("--max-seconds", str(preset.max_s)),
            *("--seed", str(seed)),
        ]

    def memory_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command line of a few inferences."""
        return self.command(python, files, threads, MEMORY_PASS, seed)

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        """Read the JSON object of run_model.py."""
        if result.exit_code != 0:
            if "larq_compute_engine is not installed" in result.stderr:
                raise MissingExtraError(
                    "profiling an lce artifact", "larq-compute-engine", "profile"
                )
            raise failure(result, artifact)
        try:
            printed: dict[str, Any] = printed_json(result, artifact)
            is_binary = is_binarized(artifact)
            return Measured(
                samples_ms=tuple(printed["samples_ms"]),
                warmup_count=printed["warmup_count"],
                warmup_settled=printed["warmup_settled"],
                other_load=printed["other_load"],
                init_ms=printed["init_ms"],
                peak_memory_mib=printed["peak_memory_mib"],
                runtime={
                    "name": "larq-compute-engine",
                    "version": printed["larq_compute_engine"],
                    "sha256": printed["extension_sha256"],
                    "binary_kernel": BINARY_KERNEL if is_binary else None,
                    "float_kernel": FLOAT_KERNEL,
                    "python": printed["python"],
                    "numpy": printed["numpy"],
                },
                note=thread_note(is_binary, threads),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise garbage(result, artifact) from error


def is_binarized(artifact: Artifact) -> bool:
    """Whether a .tflite file holds a 1-bit convolution of LCE."""
    return _BINARY_OPERATOR in artifact.model_path.read_bytes()


def thread_note(is_binary: bool, threads: int) -> str | None:
    """What a reader must know of a binarized model on several threads of the indirect kernel."""
    if is_binary and threads > 1:
        return (
            f"the {BINARY_KERNEL} binary kernel runs on one thread; "
            f"only the float layers use {threads}"
        )
    return None


RUNNER = LceRunner
