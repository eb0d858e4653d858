"""Runners that time a model by a script of ours in a device's Python: what they have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.profiling.presets import MEMORY_PASS
from bibench_deploy.profiling.runners._runner import (
    Measured,
    Runner,
    failure,
    garbage,
    printed_json,
)

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment
    from bibench_deploy.profiling.presets import Preset

NO_PYTHON = "no Python was found on it; name one by: bibench devices add … --python PATH"


class ScriptRunner(Runner):
    """Times models in processes of a target's run_model.py, which prints one JSON object.

    Attributes:
        script: that file; it needs nothing of bibench.
    """

    script: Path

    @abstractmethod
    def runtime(self, printed: Mapping[str, Any], artifact: Artifact) -> dict[str, Any]:
        """Say what ran an artifact: `name`, `version`, `sha256`, `binary_kernel`, `float_kernel`.

        Raises:
            KeyError: the script did not print what it takes.
        """

    def note(self, artifact: Artifact, threads: int) -> str | None:
        """Say what a reader of an artifact's figure must know; None for nothing."""
        return None

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """The model, and the script."""
        return {"model": artifact.model_path, "script": self.script}

    def words(self, python: str, files: Mapping[str, str], threads: int, seed: int) -> list[str]:
        """Give the command line of the script but for how long it measures."""
        return [
            python,
            files["script"],
            *("--model", files["model"]),
            *("--threads", str(threads)),
            *("--seed", str(seed)),
        ]

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        """Give the command line of the script."""
        return [
            *self.words(python, files, threads, seed),
            *("--warmup-min-s", str(preset.warmup_min_s)),
            *("--warmup-max-s", str(preset.warmup_max_s)),
            *("--min-runs", str(preset.min_runs)),
            *("--min-seconds", str(preset.min_s)),
            *("--max-seconds", str(preset.max_s)),
        ]

    def memory_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command line of a few inferences."""
        return self.command(python, files, threads, MEMORY_PASS, seed)

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        """Read the JSON object of the script."""
        if result.exit_code != 0:
            raise failure(result, artifact)
        printed = printed_json(result, artifact)
        try:
            in_python = {name: printed[name] for name in ("python", "numpy")}
            return Measured(
                samples_ms=tuple(printed["samples_ms"]),
                warmup_count=printed["warmup_count"],
                warmup_settled=printed["warmup_settled"],
                other_load=printed["other_load"],
                init_ms=printed["init_ms"],
                peak_memory_mib=printed["peak_memory_mib"],
                runtime={**self.runtime(printed, artifact), **in_python},
                note=self.note(artifact, threads),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise garbage(result, artifact) from error
