"""Runners of a program that a user adds by `bibench runtimes add`: what they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.devices.runtimes import Program, find_program, missing_program
from bibench_deploy.profiling.runners._runner import Runner

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.profiling.environment import Environment


class ProgramRunner(Runner):
    """Times models in processes of a program of the engine's own."""

    program: Program

    def obstacle(self, environment: Environment) -> str | None:
        """The program must have been added for this ABI."""
        if find_program(self.program, environment.abi) is None:
            return missing_program(self.program, environment.abi)
        return None

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """The model, and the program."""
        kept = find_program(self.program, environment.abi)
        assert kept is not None, "asked for where there is an obstacle"
        return {"model": artifact.model_path, "program": kept.path}
