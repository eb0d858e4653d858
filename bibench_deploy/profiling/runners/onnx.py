"""ONNX Runtime from Python, by targets/onnx/run_model.py: for the target `onnx`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.profiling.operators import INFERENCES, OperatorTime, operators_from
from bibench_deploy.profiling.presets import MEMORY_PASS
from bibench_deploy.profiling.runners._runner import (
    NO_PYTHON,
    Measured,
    Runner,
    failure,
    garbage,
    printed_json,
)
from bibench_deploy.targets.onnx import run_model

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment
    from bibench_deploy.profiling.presets import Preset


class OnnxRunner(Runner):
    """Times .onnx files in processes of run_model.py."""

    name = "onnx"
    target = "onnx"
    no_operators = ""

    def obstacle(self, environment: Environment) -> str | None:
        """The package has wheels for every instruction set with 64 bits."""
        return onnxruntime_obstacle(environment)

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """The model, and the self-contained runner script."""
        return {"model": artifact.model_path, "script": Path(run_model.__file__)}

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        """Give the command line of run_model.py."""
        return script_command(python, files, threads, preset, seed)

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
            raise failure(result, artifact)
        try:
            printed: dict[str, Any] = printed_json(result, artifact)
            return Measured(
                samples_ms=tuple(printed["samples_ms"]),
                warmup_count=printed["warmup_count"],
                warmup_settled=printed["warmup_settled"],
                other_load=printed["other_load"],
                init_ms=printed["init_ms"],
                peak_memory_mib=printed["peak_memory_mib"],
                runtime={
                    "name": "onnxruntime",
                    "version": printed["onnxruntime"],
                    "sha256": printed["extension_sha256"],
                    "binary_kernel": None,
                    "float_kernel": "onnxruntime",
                    "python": printed["python"],
                    "numpy": printed["numpy"],
                },
                note=None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise garbage(result, artifact) from error

    def operators_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command line of run_model.py under ONNX Runtime's profiler."""
        words = _model_words(python, files, threads, seed)
        return [*words, "--operators", str(INFERENCES)]

    def read_operators(self, result: CommandResult, artifact: Artifact) -> tuple[OperatorTime, ...]:
        """Read the JSON object of run_model.py."""
        if result.exit_code != 0:
            raise failure(result, artifact)
        try:
            return operators_from(printed_json(result, artifact)["operators"])
        except (ValueError, KeyError, TypeError) as error:
            raise garbage(result, artifact) from error


def onnxruntime_obstacle(environment: Environment) -> str | None:
    """Why a device's Python cannot run run_model.py; None where it can."""
    if environment.python is None:
        return NO_PYTHON
    missing = [name for name in ("onnxruntime", "numpy") if environment.package(name) is None]
    if missing:
        return (
            f"its Python has no {' and no '.join(missing)}; "
            f"run there: python -m pip install {' '.join(missing)}"
        )
    return None


def script_command(
    python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
) -> list[str]:
    """Give the command line of run_model.py, with the file "library" where there is one."""
    return [
        *_model_words(python, files, threads, seed),
        *("--warmup-min-s", str(preset.warmup_min_s)),
        *("--warmup-max-s", str(preset.warmup_max_s)),
        *("--min-runs", str(preset.min_runs)),
        *("--min-seconds", str(preset.min_s)),
        *("--max-seconds", str(preset.max_s)),
    ]


def _model_words(python: str, files: Mapping[str, str], threads: int, seed: int) -> list[str]:
    library = ["--custom-ops-library", files["library"]] if "library" in files else []
    return [
        python,
        files["script"],
        *("--model", files["model"]),
        *library,
        *("--threads", str(threads)),
        *("--seed", str(seed)),
    ]


RUNNER = OnnxRunner
