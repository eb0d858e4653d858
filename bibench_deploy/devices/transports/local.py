"""This machine: commands are child processes, files stay where they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bibench_deploy.devices.transports._transport import CommandResult, Transport
from bibench_deploy.errors import DeviceError

# How long a command in the background may take to end when it is told to.
_END_S = 5.0


class LocalTransport(Transport):
    """Runs commands here, each as the leader of a session of its own."""

    @property
    def python(self) -> str:
        """The Python that runs bibench, unless the device's fact `python` names another."""
        return str(self.device.facts.get("python", sys.executable))

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> CommandResult:
        """Run a child process; afterwards its whole process group is killed.

        A child that makes a session for itself leaves the group and is not found.
        """
        try:
            # A session of its own keeps Ctrl-C, which goes to a terminal's whole foreground
            # group, from reaching the command: it is ended here, in one place.
            process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                f"device {self.device.name}: cannot start {arguments[0]}: {error.strerror}"
            ) from error
        with process:
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise self.timeout_error(arguments, timeout_s) from None
            finally:
                _kill_group(process.pid)
                process.wait()
        # Not as text mode does it, which takes \r for the end of a line.
        return CommandResult(
            process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
        )

    @contextlib.contextmanager
    def listening(self, arguments: Sequence[str], hear: Callable[[str], object]) -> Iterator[None]:
        """Run a child process in the background."""
        try:
            process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError:  # no sh, as on Windows
            yield
            return
        assert process.stdout is not None
        lines = process.stdout
        reader = threading.Thread(
            target=lambda: [hear(line.rstrip("\n")) for line in lines], daemon=True
        )
        reader.start()
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            _kill_group(process.pid)
            process.wait()
            reader.join(_END_S)
            lines.close()

    def push(self, file: Path) -> str:
        """Give the file's own absolute path: it is on the device already."""
        if not file.is_file():
            raise DeviceError(f"device {self.device.name}: no file {file} to push")
        return str(file.resolve())

    def pull(self, path: str, file: Path) -> None:
        """Copy the file."""
        try:
            shutil.copyfile(path, file)
        except OSError as error:
            raise DeviceError(
                f"device {self.device.name}: cannot pull {path}: {error.strerror}"
            ) from error


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left; macOS says it by EPERM when only zombies are.
        return


TRANSPORT = LocalTransport
