"""A device that exists in a test only: it gives scripted results and keeps files in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.devices.transports._transport import CommandResult, Transport
from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from bibench_deploy.devices.registry import Device


class FakeTransport(Transport):
    """Answers commands with what a test has said, in the order in which it was said.

    Attributes:
        commands: the arguments of every command so far, in order.
        files: content of every pushed file, by its path on the device.

    Example:
        >>> from bibench_deploy.devices.registry import Device
        >>> transport = FakeTransport(Device("board", "a board", "fake"))
        >>> transport.answer(stdout="aarch64")
        >>> transport.run(["uname", "-m"], timeout_s=1).stdout
        'aarch64'
        >>> transport.commands
        [['uname', '-m']]
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.commands: list[list[str]] = []
        self.files: dict[str, bytes] = {}
        self._answers: deque[tuple[CommandResult, float] | BaseException] = deque()

    def answer(
        self, stdout: str = "", *, stderr: str = "", exit_code: int = 0, takes_s: float = 0.0
    ) -> None:
        """Say how the next command without an answer ends.

        Args:
            stdout: what the command writes.
            stderr: likewise.
            exit_code: how it ends.
            takes_s: how long it takes on the device. Nothing waits: a command that takes
                longer than its timeout fails at once.
        """
        self._answers.append((CommandResult(exit_code, stdout, stderr), takes_s))

    def fail(self, error: BaseException) -> None:
        """Let the next command without an answer raise this, as a broken link would."""
        self._answers.append(error)

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> CommandResult:
        """Give the next answer.

        Raises:
            LookupError: a command that no answer is left for: the test has a gap.
        """
        self.commands.append(list(arguments))
        if not self._answers:
            raise LookupError(f"no answer scripted for command {list(arguments)}")
        answer = self._answers.popleft()
        if isinstance(answer, BaseException):
            raise answer
        result, takes_s = answer
        if takes_s > timeout_s:
            raise self.timeout_error(arguments, timeout_s)
        return result

    def push(self, file: Path) -> str:
        """Keep the content."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DeviceError(f"device {self.device.name}: no file {file} to push") from error
        path = f"/fake/{len(self.files)}/{file.name}"
        self.files[path] = content
        return path

    def pull(self, path: str, file: Path) -> None:
        """Write the kept content."""
        if path not in self.files:
            raise DeviceError(f"device {self.device.name}: no file {path} to pull")
        file.write_bytes(self.files[path])


TRANSPORT = FakeTransport
