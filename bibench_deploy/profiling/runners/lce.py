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
from bibench_deploy.profiling.runners._runner import Measured
from bibench_deploy.profiling.runners._script import NO_PYTHON, ScriptRunner
from bibench_deploy.targets.lce import run_model

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment

BINARY_KERNEL = "indirect"
FLOAT_KERNEL = "xnnpack"
# The name of the custom operator, as it stands in the flatbuffer.
_BINARY_OPERATOR = b"LceBconv2d"
# Where larq-compute-engine has wheels, as of release 0.16.0.
_ABIS = ("x86-64", "macos-arm64")


class LceRunner(ScriptRunner):
    """Times .tflite files in processes of run_model.py."""

    name = "lce"
    target = "lce"
    script = Path(run_model.__file__)

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

    def words(self, python: str, files: Mapping[str, str], threads: int, seed: int) -> list[str]:
        """Those of every script, and the kernels."""
        words = super().words(python, files, threads, seed)
        return [*words, "--kernel", BINARY_KERNEL, "--xnnpack"]

    def runtime(self, printed: Mapping[str, Any], artifact: Artifact) -> dict[str, Any]:
        """The interpreter's package and extension, and the kernels."""
        return {
            "name": "larq-compute-engine",
            "version": printed["larq_compute_engine"],
            "sha256": printed["extension_sha256"],
            "binary_kernel": BINARY_KERNEL if is_binarized(artifact) else None,
            "float_kernel": FLOAT_KERNEL,
        }

    def note(self, artifact: Artifact, threads: int) -> str | None:
        """The indirect kernel leaves all threads but one idle."""
        if threads > 1 and is_binarized(artifact):
            return (
                f"the {BINARY_KERNEL} binary kernel runs on one thread; "
                f"only the float layers use {threads}"
            )
        return None

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        """Read the JSON object of run_model.py."""
        if result.exit_code != 0 and "larq_compute_engine is not installed" in result.stderr:
            raise MissingExtraError("profiling an lce artifact", "larq-compute-engine", "profile")
        return super().read(result, artifact, files, threads)


def is_binarized(artifact: Artifact) -> bool:
    """Whether a .tflite file holds a 1-bit convolution of LCE."""
    return _BINARY_OPERATOR in artifact.model_path.read_bytes()


RUNNER = LceRunner
