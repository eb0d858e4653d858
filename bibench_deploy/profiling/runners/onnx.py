"""ONNX Runtime from Python, by targets/onnx/run_model.py: for the target `onnx`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.profiling.operators import INFERENCES, OperatorTime, operators_from
from bibench_deploy.profiling.runners._runner import failure, garbage, printed_json
from bibench_deploy.profiling.runners._script import NO_PYTHON, ScriptRunner
from bibench_deploy.targets.onnx import run_model

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment


class OnnxRunner(ScriptRunner):
    """Times .onnx files in processes of run_model.py."""

    name = "onnx"
    target = "onnx"
    script = Path(run_model.__file__)
    no_operators = ""

    def obstacle(self, environment: Environment) -> str | None:
        """The package has wheels for every instruction set with 64 bits."""
        return onnxruntime_obstacle(environment)

    def words(self, python: str, files: Mapping[str, str], threads: int, seed: int) -> list[str]:
        """Those of every script, with the file "library" where there is one."""
        library = ["--custom-ops-library", files["library"]] if "library" in files else []
        return [*super().words(python, files, threads, seed), *library]

    def runtime(self, printed: Mapping[str, Any], artifact: Artifact) -> dict[str, Any]:
        """All of it is ONNX Runtime's own."""
        return {
            "name": "onnxruntime",
            "version": printed["onnxruntime"],
            "sha256": printed["extension_sha256"],
            "binary_kernel": None,
            "float_kernel": "onnxruntime",
        }

    def operators_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command line of run_model.py under ONNX Runtime's profiler."""
        return [*self.words(python, files, threads, seed), "--operators", str(INFERENCES)]

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


RUNNER = OnnxRunner
