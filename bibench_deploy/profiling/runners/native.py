"""ONNX Runtime with bibench's library of operators, by targets/onnx/run_model.py.

A device needs onnxruntime and numpy in its Python; model, library and script are pushed there. The
library of this machine's own instruction set comes with bibench, that of another is built here
once: `bibench runtimes add native --abi aarch64`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.artifact import sha256_of
from bibench_deploy.devices.runtimes import Program, find_program, missing_program
from bibench_deploy.errors import MissingLibraryError
from bibench_deploy.profiling.environment import Environment
from bibench_deploy.profiling.runners._runner import Measured
from bibench_deploy.profiling.runners.onnx import OnnxRunner, onnxruntime_obstacle
from bibench_deploy.targets.native.build import BuildError, build_library
from bibench_deploy.targets.native.shared_library import find_library

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult

BINARY_KERNEL = "bibench"
_OWN_SOURCES = "built from bibench's own sources by a C++ compiler that is installed here"


def _build(abi: str, folder: Path) -> Path:
    try:
        return build_library(abi, folder)
    except BuildError as error:
        raise MissingLibraryError(str(error)) from error


class NativeRunner(OnnxRunner):
    """Times .onnx files with binary operators in processes of run_model.py."""

    name = "native"
    target = "native"
    program = Program("native", {"aarch64": _OWN_SOURCES}, _build)

    def obstacle(self, environment: Environment) -> str | None:
        """Python needs its packages, and the library must be there for this ABI."""
        library = _library_for(environment, self.program)
        missing = library if isinstance(library, str) else None
        return onnxruntime_obstacle(environment) or missing

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """The model, the library, and the self-contained runner script."""
        library = _library_for(environment, self.program)
        assert isinstance(library, Path), "asked for where there is an obstacle"
        return {**super().files(artifact, environment), "library": library}

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        """Read the JSON object of run_model.py."""
        measured = super().read(result, artifact, files, threads)
        is_binary = artifact.role == "model"
        own = {"binary_kernel": BINARY_KERNEL} if is_binary else {}
        own["library_sha256"] = sha256_of(files["library"])
        return replace(measured, runtime={**measured.runtime, **own})


def _library_for(environment: Environment, program: Program) -> Path | str:
    """The library for a device, or why there is none and what to do."""
    kept = find_program(program, environment.abi)
    if kept is not None:
        return kept.path
    here = Environment(machine=platform.machine(), system=platform.system())
    if environment.abi is None or environment.abi != here.abi:
        return missing_program(program, environment.abi)
    try:
        return find_library()
    except MissingLibraryError as error:
        return str(error)


RUNNER = NativeRunner
