"""What a runner tells the session: files to push, the command of a block, what it printed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.presets import Preset


@dataclass(frozen=True)
class Measured:
    """What one process measured.

    Attributes:
        samples_ms: every timed inference, in order; at least one.
        warmup_count: inferences before them.
        warmup_settled: whether these had come to take the same time.
        other_load: share of the processors' time, 0 to 1, that other processes used meanwhile;
            None where unknown.
        init_ms: from the model's bytes to an interpreter that can run.
        peak_memory_mib: most memory that the process had resident; None where unknown.
        runtime: `name`, `version`, `sha256`, `binary_kernel`, `float_kernel` and what else
            the figures depend on.
        note: what a reader of the figure must know; None for nothing.
    """

    samples_ms: tuple[float, ...]
    warmup_count: int
    warmup_settled: bool
    other_load: float | None
    init_ms: float
    peak_memory_mib: float | None
    runtime: dict[str, Any]
    note: str | None


class Runner(ABC):
    """Runs artifacts of one target. It talks to no device itself."""

    @abstractmethod
    def scripts(self) -> tuple[Path, ...]:
        """Files of bibench that a device needs beside the model."""

    @abstractmethod
    def command(
        self,
        python: str,
        scripts: Sequence[str],
        model: str,
        threads: int,
        preset: Preset,
        seed: int,
    ) -> list[str]:
        """Give the command that measures one block.

        Args:
            python: the Python on the device.
            scripts: where `scripts()` lie on the device, in the same order.
            model: where the model file lies on the device.
            threads: at least 1.
            preset: how long to measure.
            seed: of the input's values.
        """

    @abstractmethod
    def read(self, result: CommandResult, artifact: Artifact, threads: int) -> Measured:
        """Read what the command of a block printed.

        Raises:
            DeviceError: the command failed, or printed something else.
            MissingExtraError: the runtime is not installed where bibench is.
        """
