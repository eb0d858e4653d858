"""What a runner tells the session: what it needs, files to push, a block's command, its output."""

from __future__ import annotations

import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.devices.runtimes import Program
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling.plausible import is_figure, is_time

if TYPE_CHECKING:
    from bibench_deploy.artifact import Artifact
    from bibench_deploy.devices.transports._transport import CommandResult
    from bibench_deploy.profiling.environment import Environment
    from bibench_deploy.profiling.operators import OperatorTime
    from bibench_deploy.profiling.presets import Preset
    from bibench_deploy.profiling.statistics import Aggregate


@dataclass(frozen=True)
class Measured:
    """What one process measured.

    Attributes:
        samples_ms: every timed inference, in order; empty only where there is an `aggregate`.
        warmup_count: inferences before them.
        warmup_settled: whether these had come to take the same time; None where the runner
            warms up by number or time, and does not look.
        other_load: share of the processors' time, 0 to 1, that other processes used meanwhile;
            None where unknown.
        init_ms: from the model's bytes to an interpreter that can run; None where unknown.
        peak_memory_mib: most memory that the process had resident; None where unknown.
        runtime: `name`, `version`, `sha256`, `binary_kernel`, `float_kernel` and what else
            the figures depend on.
        note: what a reader of the figure must know; None for nothing.
        aggregate: what a runner that keeps no samples gives in their place.
    """

    samples_ms: tuple[float, ...]
    warmup_count: int
    warmup_settled: bool | None
    other_load: float | None
    init_ms: float | None
    peak_memory_mib: float | None
    runtime: dict[str, Any]
    note: str | None
    aggregate: Aggregate | None = None

    def __post_init__(self) -> None:
        """Refuse what no process can have measured: a device may print anything.

        Raises:
            ValueError: a number is none, or beyond all measure; or there is nothing; or a text
                could steer a terminal.
        """
        times = [*self.samples_ms]
        others = [self.init_ms, self.warmup_count, self.other_load, self.peak_memory_mib]
        if self.aggregate is not None:
            times += [self.aggregate.mean_ms, self.aggregate.count]
            others += [self.aggregate.median_ms, self.aggregate.min_ms]
            others += [self.aggregate.max_ms, self.aggregate.std_ms]
        for time in times:
            if not is_time(time):
                raise ValueError("a time is no number above 0")
        if bool(self.samples_ms) == bool(self.aggregate):
            raise ValueError("samples, or an aggregate in their place, and not both")
        for number in others:
            if number is not None and not is_figure(number):
                raise ValueError("a figure is no number from 0 on")
        if self.warmup_settled not in (True, False, None) or type(self.warmup_settled) is int:
            raise ValueError("warmup_settled is no bool")
        for text in self.runtime.values():
            if text is not None and (
                type(text) is not str or not text.isprintable() or len(text) > _LONGEST_TEXT
            ):
                raise ValueError("what the runtime says of itself is no text")


_LONGEST_TEXT = 200
# Room for a file's whole path and what is wrong with it.
_LONGEST_REASON = 500


class Runner(ABC):
    """A way to run artifacts of one target on a device. It talks to no device itself.

    Attributes:
        name: as its file.
        target: whose artifacts it runs. Several runners may share one; the first by name that
            has no obstacle on a device is the one used there.
        program: what it needs that bibench does not come with; None for nothing.
        one_thread: why it runs on one thread alone; empty where it takes any number.
        no_operators: why it cannot tell which operators the time goes to; empty where it can.
    """

    name: str
    target: str
    program: Program | None = None
    one_thread: str = ""
    no_operators: str = "its runtime has no profiler of operators"

    @abstractmethod
    def obstacle(self, environment: Environment) -> str | None:
        """Say why this cannot run on a device, and what would change that; None where it can.

        Args:
            environment: of the device: its instruction set, system, and installed packages.
        """

    @abstractmethod
    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        """Name the files that the device needs, by role: "model", and whatever else.

        A device may read and execute them. Equal content is pushed once, whoever names it.

        Args:
            artifact: what is to run.
            environment: of a device where there is no obstacle.
        """

    @abstractmethod
    def command(
        self,
        python: str,
        files: Mapping[str, str],
        threads: int,
        preset: Preset,
        seed: int,
    ) -> list[str]:
        """Give the command that measures one block.

        Args:
            python: the Python on the device.
            files: where the files of `files()` lie on the device, by role.
            threads: at least 1.
            preset: how long to measure.
            seed: of the input's values.
        """

    @abstractmethod
    def read(
        self,
        result: CommandResult,
        artifact: Artifact,
        files: Mapping[str, Path],
        threads: int,
    ) -> Measured:
        """Read what the command of a block printed.

        Args:
            result: of the command.
            artifact: that it ran.
            files: what `files()` gave, here and not on the device.
            threads: that the command asked for.

        Raises:
            DeviceError: the command failed, or printed something else.
            MissingExtraError: the runtime is not installed where bibench is.
        """

    def memory_command(
        self,
        python: str,
        files: Mapping[str, str],
        threads: int,
        seed: int,
    ) -> list[str] | None:
        """Give the command whose output `read` takes `peak_memory_mib` from, as `command`.

        None where the runtime does not tell.
        """
        return None

    def operators_command(
        self, python: str, files: Mapping[str, str], threads: int, seed: int
    ) -> list[str]:
        """Give the command that profiles operators, for a runner that can; as `command`."""
        raise NotImplementedError

    def read_operators(self, result: CommandResult, artifact: Artifact) -> tuple[OperatorTime, ...]:
        """Read what that command printed; the errors are those of `read`."""
        raise NotImplementedError


def failure(result: CommandResult, artifact: Artifact) -> DeviceError:
    """Make the error of a block's command that failed: how it ended, and its last words."""
    # TensorFlow Lite announces its delegate on stderr, whatever happens after.
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith("INFO: ")]
    last_line = lines[-1][:_LONGEST_REASON] if lines else "nothing on stderr"
    how = f"exit code {result.exit_code}"
    if result.exit_code < 0:
        how = f"signal {-result.exit_code}, {signal.strsignal(-result.exit_code)}"
    return DeviceError(
        f"{artifact.name}: the runner failed ({how}): {last_line}",
        exit_code=result.exit_code,
        stderr=result.stderr,
    )


def printed_json(result: CommandResult, artifact: Artifact) -> Any:
    """Read what a script of ours printed.

    Raises:
        DeviceError: it is no JSON.
    """
    try:
        return json.loads(result.stdout)
    except (ValueError, RecursionError) as error:
        raise garbage(result, artifact) from error


def garbage(result: CommandResult, artifact: Artifact) -> DeviceError:
    """Make the error of a block's command that printed something else than its result."""
    return DeviceError(
        f"{artifact.name}: the runner printed something else than its result: "
        f"{result.stdout[:80]!r}",
        exit_code=result.exit_code,
        stderr=result.stderr,
    )
