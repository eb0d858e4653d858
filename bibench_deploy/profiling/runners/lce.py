"""Larq Compute Engine's interpreter from Python, by targets/lce/run_model.py.

Kernels: LceBconv2d runs `use_indirect_bgemm`, and every other operation runs in XNNPACK, in
binarized models and in float ones alike, so that a model and its FP32 twin differ in their
binary layers only. docs/method.md has the measurements behind both choices.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.errors import DeviceError, MissingExtraError
from bibench_deploy.profiling.runners._runner import Measured, Runner
from bibench_deploy.targets.lce import run_model

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.presets import Preset

BINARY_KERNEL = "indirect"
FLOAT_KERNEL = "xnnpack"
# The name of the custom operator, as it stands in the flatbuffer.
_BINARY_OPERATOR = b"LceBconv2d"


class LceRunner(Runner):
    """Times .tflite files in processes of run_model.py."""

    def scripts(self) -> tuple[Path, ...]:
        """The self-contained runner script."""
        return (Path(run_model.__file__),)

    def command(
        self,
        python: str,
        scripts: Sequence[str],
        model: str,
        threads: int,
        preset: Preset,
        seed: int,
    ) -> list[str]:
        """Give the command line of run_model.py."""
        return [
            python,
            scripts[0],
            *("--model", model),
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

    def read(self, result: CommandResult, artifact: Artifact, threads: int) -> Measured:
        """Read the JSON object of run_model.py."""
        if result.exit_code != 0:
            raise _failure(result, artifact)
        try:
            printed: dict[str, Any] = json.loads(result.stdout)
            is_binary = _BINARY_OPERATOR in artifact.model_path.read_bytes()
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
                note=_note(is_binary, threads),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                f"{artifact.name}: the runner printed something else than its result: "
                f"{result.stdout[:80]!r}",
                exit_code=result.exit_code,
                stderr=result.stderr,
            ) from error


def _failure(result: CommandResult, artifact: Artifact) -> Exception:
    # TensorFlow Lite announces its delegate on stderr, whatever happens after.
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith("INFO: ")]
    last_line = lines[-1] if lines else "nothing on stderr"
    if "larq_compute_engine is not installed" in last_line:
        return MissingExtraError("profiling an lce artifact", "larq-compute-engine", "profile")
    how = f"exit code {result.exit_code}"
    if result.exit_code < 0:
        how = f"signal {-result.exit_code}, {signal.strsignal(-result.exit_code)}"
    return DeviceError(
        f"{artifact.name}: the runner failed ({how}): {last_line}",
        exit_code=result.exit_code,
        stderr=result.stderr,
    )


def _note(is_binary: bool, threads: int) -> str | None:
    if is_binary and threads > 1:
        return (
            f"the {BINARY_KERNEL} binary kernel runs on one thread; "
            f"only the float layers use {threads}"
        )
    return None


RUNNER = LceRunner
