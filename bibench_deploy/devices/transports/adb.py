"""A phone or board with Android's debug bridge, by adbutils and the adb server on this machine.

The device is always named by its serial, so a second phone on the desk is never meant. Commands
go through the shell protocol of Android 7 and newer, which keeps stdout, stderr and the exit
code apart.

Source: packages/modules/adb in the Android source tree, shell_protocol.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.devices.transports._remote import RemoteTransport
from bibench_deploy.devices.transports._shell import Channel, Ended, Piece
from bibench_deploy.errors import DeviceError, MissingExtraError

if TYPE_CHECKING:
    from bibench_deploy.devices.registry import Device

CONNECT_S = 3
_SERVICE = "shell,v2,raw:sh"
_STATES = {
    "unauthorized": "allow this computer on its screen",
    "offline": "unplug it and plug it in again",
    "no permissions": "allow this user to use USB devices (udev rules)",
}
# Kinds of packets of the shell protocol.
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BI")


class AdbTransport(RemoteTransport):
    """Runs commands through the adb server, each in a connection of its own."""

    DEFAULT_WORK_FOLDER = "/data/local/tmp/bibench"

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        try:
            import adbutils
        except ModuleNotFoundError as error:
            raise MissingExtraError("reaching a device over adb", "adbutils", "adb") from error
        serial = device.facts.get("serial")
        if not isinstance(serial, str) or not serial:
            raise DeviceError(
                f"device {device.name}: its connection names no serial; run: "
                f"bibench devices add {device.name} --adb SERIAL"
            )
        self._serial = serial
        self._client = client = adbutils.AdbClient()
        try:
            socket.create_connection((client.host, client.port), CONNECT_S).close()
        except ConnectionRefusedError:
            # adbutils would start it too, but let it talk.
            subprocess.run([adbutils.adb_path(), "start-server"], capture_output=True, check=False)
        except OSError:
            pass  # the next call says what it is
        self._check_state(client)
        self._adb = client.device(serial)
        with self._reached(), _as_os_errors():
            features = self._adb.get_features()
        if "shell_v2" not in features.split(","):
            raise DeviceError(
                f"device {device.name}: {serial} has no shell protocol, which tells exit codes; "
                "it needs Android 7 or newer"
            )

    def open_channel(self) -> _AdbChannel:
        """Start `sh` by the shell protocol."""
        with _as_os_errors():
            connection = self._client.make_connection()
            try:
                for service in (f"host:transport:{self._serial}", _SERVICE):
                    connection.send_command(service)
                    connection.check_okay()
            except BaseException:
                connection.close()
                raise
        return _AdbChannel(connection)

    def upload(self, file: Path, path: str) -> None:
        """Copy by adb's sync service."""
        with _as_os_errors():
            self._adb.sync.push(file, path, mode=0o600)

    def download(self, path: str, file: Path) -> None:
        """Copy by adb's sync service."""
        with _as_os_errors():
            if self._adb.sync.stat(path).mode == 0:
                raise FileNotFoundError(path)
            self._adb.sync.pull_file(path, file)

    def _check_state(self, client: Any) -> None:
        """Say what keeps the device from being used, and what to do."""
        try:
            with _as_os_errors():
                states = {entry.serial: entry.state for entry in client.list()}
        except OSError as error:
            raise DeviceError(
                f"device {self.device.name}: no adb server answers on this machine ({error}); "
                "run: adb start-server"
            ) from error
        state = states.get(self._serial)
        if state == "device":
            return
        if state is None:
            known = ", ".join(sorted(states)) or "none"
            raise DeviceError(
                f"device {self.device.name}: adb knows no device {self._serial} (it knows: {known})"
                "; plug it in with USB debugging on, or run: adb connect HOST:PORT"
            )
        raise DeviceError(
            f"device {self.device.name}: adb says that {self._serial} is {state}; "
            f"{_STATES.get(state, 'start it normally')}"
        )


class _AdbChannel(Channel):
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket.socket = connection.conn
        self._unread = b""

    def send(self, content: bytes) -> None:
        self._socket.sendall(_HEADER.pack(_STDIN, len(content)) + content)

    def end_input(self) -> None:
        self._socket.sendall(_HEADER.pack(_CLOSE_STDIN, 0))

    def receive(self, timeout_s: float) -> Piece | Ended | None:
        while (packet := self._packet()) is None:
            # A timeout of 0 would mean "do not block" to the socket, and raise another error.
            self._socket.settimeout(max(timeout_s, 0.001))
            try:
                content = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            finally:
                self._socket.settimeout(None)
            if not content:
                raise ConnectionError("the device went away")
            self._unread += content
        kind, content = packet
        if kind == _EXIT:
            return Ended(content[0] if content else -1)
        return Piece("stderr" if kind == _STDERR else "stdout", content)

    def _packet(self) -> tuple[int, bytes] | None:
        if len(self._unread) < _HEADER.size:
            return None
        kind, size = _HEADER.unpack_from(self._unread)
        end = _HEADER.size + size
        if len(self._unread) < end:
            return None
        content, self._unread = self._unread[_HEADER.size : end], self._unread[end:]
        return kind, content

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Give the errors of adbutils as those of the operating system."""
    from adbutils.errors import AdbError

    try:
        yield
    except (AdbError, EOFError) as error:
        raise ConnectionError(str(error) or "adb broke off") from error


TRANSPORT = AdbTransport
