"""What every transport can do: run a command on a device, push a file, pull a file."""

from __future__ import annotations

import contextlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from types import TracebackType

    from bibench_deploy.devices.registry import Device


@dataclass(frozen=True)
class CommandResult:
    """How a command on a device ended.

    Attributes:
        exit_code: 0 for success; −N where signal N ended the command.
        stdout: all of it, as text; bytes that are no UTF-8 become U+FFFD.
        stderr: likewise.
    """

    exit_code: int
    stdout: str
    stderr: str


class Transport(ABC):
    """A way to one device. Leaving its `with` block ends whatever it still has running there."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @property
    def python(self) -> str:
        """The Python on the device that has the runtimes; the device's fact `python`, if any."""
        return str(self.device.facts.get("python", "python3"))

    @property
    def work_folder(self) -> str:
        """The folder whose free space counts; on another machine, where pushed files go."""
        return "."

    @abstractmethod
    def run(self, arguments: Sequence[str], *, timeout_s: float) -> CommandResult:
        """Run a command to its end.

        Nothing of the command outlives this call, however the call ends: by a result, by the
        timeout, or by Ctrl-C.

        Args:
            arguments: the program and its arguments; no shell reads them.
            timeout_s: how long the command may take, in seconds.

        Returns:
            The result, whatever the exit code.

        Raises:
            DeviceError: the command cannot be started, the link broke, or the time is up.
        """

    @abstractmethod
    def push(self, file: Path) -> str:
        """Bring a file of this machine to the device.

        Returns:
            The path under which commands on the device find its content, as it is now. They
            may read it, not write it.

        Raises:
            DeviceError: the file cannot be read, or not be brought there.
        """

    def push_all(self, files: Sequence[Path]) -> dict[Path, str]:
        """Bring several files to the device.

        Returns:
            For each file what `push` gives.

        Raises:
            DeviceError: as `push`.
        """
        return {file: self.push(file) for file in files}

    @abstractmethod
    def pull(self, path: str, file: Path) -> None:
        """Bring the file at `path` on the device here, over `file` if that exists.

        Raises:
            DeviceError: there is no such file on the device, or it cannot be brought here.
        """

    def listening(
        self,
        arguments: Sequence[str],  # noqa: ARG002 - who can hear overrides this
        hear: Callable[[str], object],  # noqa: ARG002 - who can hear overrides this
    ) -> contextlib.AbstractContextManager[None]:
        """Run a command beside others inside a `with` block, and hear each line that it writes.

        The command is told to end by SIGTERM when the block is left, or when the link is cut; what
        goes wrong with it is no error of the block.

        Args:
            arguments: as for `run`.
            hear: called with each line, from another thread.
        """
        return contextlib.nullcontext()

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Keep other hosts off the device inside a `with` block, where they could be there.

        Raises:
            DeviceError: another host holds it; says which one, and its last sign of life.
        """
        return contextlib.nullcontext()

    def check_pushed(self, paths: Sequence[str]) -> None:  # noqa: B027 - files here stay
        """Make sure that pushed files are still there.

        Args:
            paths: as `push` gave them.

        Raises:
            DeviceError: one is gone, as after a restart of the device.
        """

    def clean(self) -> tuple[int, int]:
        """Remove what was pushed to the device, by this host or by others.

        Returns:
            The number of files, and their size in bytes.

        Raises:
            DeviceError: another host is using it, or the device cannot be reached.
        """
        return 0, 0

    def close(self) -> None:  # noqa: B027 - most transports hold nothing open
        """Give up the connection. A second call does nothing."""

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def timeout_error(self, arguments: Sequence[str], timeout_s: float) -> DeviceError:
        """Make the error of a command that was ended because its time was up."""
        return DeviceError(
            f"device {self.device.name}: not finished after {timeout_s:g} s, so it was ended: "
            f"{shlex.join(arguments)}"
        )
