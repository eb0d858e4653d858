"""A board with an ssh server, by Fabric and paramiko.

~/.ssh/config is honoured: HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump,
ProxyCommand, UserKnownHostsFile. Keys come from there, from the agent and from ~/.ssh; no
password is ever asked for. A host key that is not in known_hosts, or another one than there,
ends in an error that says how to accept it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import select
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.devices.transports._remote import RemoteTransport
from bibench_deploy.devices.transports._shell import Channel, Ended, Piece
from bibench_deploy.errors import DeviceError, MissingExtraError

if TYPE_CHECKING:
    from bibench_deploy.devices.registry import Device

CONNECT_S = 10
KEEPALIVE_S = 15
_CONFIG = Path("~/.ssh/config")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class SshTransport(RemoteTransport):
    """Runs commands over one ssh connection, each in a channel of its own."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        try:
            import fabric  # noqa: F401 - what is missing is said before anything is tried
        except ModuleNotFoundError as error:
            raise MissingExtraError("reaching a device over ssh", "fabric", "ssh") from error
        self._host = _text(device, "host")
        if self._host is None:
            raise DeviceError(
                f"device {device.name}: its connection names no host; run: "
                f"bibench devices add {device.name} --ssh USER@HOST"
            )
        self._user, self._port = _text(device, "user"), _port(device)
        config = _text(device, "ssh_config")
        self._config_file = Path(config or _CONFIG).expanduser()
        if config and not self._config_file.is_file():
            raise DeviceError(f"device {device.name}: no file {config}, its ssh_config")
        # paramiko tells its own troubles to stderr unless somebody listens.
        logger = logging.getLogger("paramiko")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._connection = self._connect()

    def open_channel(self) -> _SshChannel:
        """Start `sh` in a new channel."""
        with _as_os_errors():
            channel = self._connection.transport.open_session(timeout=CONNECT_S)
            channel.exec_command("sh")
        return _SshChannel(channel)

    def upload(self, file: Path, path: str) -> None:
        """Copy by SFTP."""
        with _as_os_errors():
            self._connection.sftp().put(str(file), path, confirm=True)

    def download(self, path: str, file: Path) -> None:
        """Copy by SFTP."""
        with _as_os_errors():
            self._connection.sftp().stat(path)  # before the file here is made
            self._connection.sftp().get(path, str(file))

    def close(self) -> None:
        """Close the connection; on a lost link, what Fabric closes first may fail."""
        with contextlib.suppress(OSError), _as_os_errors():
            self._connection.close()
        self._connection.client.close()

    @property
    def _address(self) -> str:
        return f"{self._user}@{self._host}" if self._user else str(self._host)

    def _ssh_command(self) -> str:
        """What a user types to come here by hand."""
        is_default = self._config_file == _CONFIG.expanduser()
        config = [] if is_default else ["-F", str(self._config_file)]
        port = ["-p", str(self._port)] if self._port else []
        return shlex.join(["ssh", *config, *port, self._address])

    def _connect(self) -> Any:
        """Open the connection, after what the user's files say of it."""
        import fabric
        import paramiko

        self._hops: list[Any] = []
        with self._reading(self._config_file):
            hosts = paramiko.SSHConfig()
            if self._config_file.is_file():
                hosts = paramiko.SSHConfig.from_path(str(self._config_file))
            wanted = hosts.lookup(self._host)
            hop = connection = fabric.Connection(
                self._host,
                user=self._user,
                port=self._port,
                config=fabric.Config(ssh_config=hosts),
                connect_timeout=CONNECT_S,
                connect_kwargs={
                    "banner_timeout": CONNECT_S,
                    "auth_timeout": CONNECT_S,
                    "look_for_keys": wanted.get("identitiesonly", "no").lower() != "yes",
                },
            )
        while isinstance(hop, fabric.Connection):  # a ProxyJump is checked like the board itself
            self._hops.append(hop)
            self._check_host_keys(hop, hosts)
            # ssh passes over an IdentityFile that is not there; paramiko stops at it.
            keys = hop.connect_kwargs.get("key_filename", [])
            there = [key for key in keys if Path(key).expanduser().is_file()]
            hop.connect_kwargs["key_filename"] = there
            hop = hop.gateway
        try:
            connection.open()
            connection.transport.set_keepalive(KEEPALIVE_S)
        except BaseException as error:
            connection.close()
            if isinstance(error, Exception):
                raise self._explained(error) from error
            raise
        return connection

    def _check_host_keys(self, connection: Any, hosts: Any) -> None:
        import paramiko

        transport = self

        class Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko has no types
            def missing_host_key(self, _client: Any, hostname: str, key: Any) -> None:
                raise DeviceError(
                    f"device {transport.device.name}: the host key of {hostname} is not known "
                    f"({key.get_name()} {_fingerprint(key)}); compare it on the board, and "
                    f"accept it by: {transport._ssh_command()}"
                )

        connection.client.set_missing_host_key_policy(Refuse())
        said = hosts.lookup(connection.original_host).get("userknownhostsfile", "")
        files = shlex.split(said) or list(_KNOWN_HOSTS)
        for name in [*files, *_GLOBAL_KNOWN_HOSTS]:
            path = Path(name).expanduser()
            with self._reading(path):
                if path.is_file():
                    connection.client.load_system_host_keys(str(path))
        self._known_hosts = Path(files[0]).expanduser()

    @contextlib.contextmanager
    def _reading(self, file: Path) -> Iterator[None]:
        """Name the file of the user's that cannot be read."""
        import paramiko
        from paramiko.hostkeys import InvalidHostKey

        try:
            yield
        except (OSError, ValueError, paramiko.SSHException, InvalidHostKey) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise DeviceError(f"device {self.device.name}: {file}: {reason}") from error

    def _explained(self, error: Exception) -> Exception:
        """Say what kept us from connecting, and what to do."""
        import paramiko

        name, address = self.device.name, self._address
        if isinstance(error, DeviceError):
            return error
        if isinstance(error, paramiko.BadHostKeyException):
            is_default = self._known_hosts == Path(_KNOWN_HOSTS[0]).expanduser()
            file = [] if is_default else ["-f", str(self._known_hosts)]
            # paramiko gives the host alone; known_hosts has another form for other ports.
            port = next((hop.port for hop in self._hops if hop.host == error.hostname), 22)
            entry = error.hostname if port == 22 else f"[{error.hostname}]:{port}"
            forget = shlex.join(["ssh-keygen", *file, "-R", entry])
            return DeviceError(
                f"device {name}: the host key of {entry} has changed to "
                f"{error.key.get_name()} {_fingerprint(error.key)}: somebody may be in between; if "
                f"the board was set up anew, accept it by: {forget} && {self._ssh_command()}"
            )
        if isinstance(error, paramiko.PasswordRequiredException):
            return DeviceError(
                f"device {name}: the key for {address} has a passphrase; unlock it by: ssh-add"
            )
        if isinstance(error, paramiko.AuthenticationException) or "No authentication" in str(error):
            return DeviceError(
                f"device {name}: {address} refused our keys ({error}); let it know one by: "
                f"{self._ssh_command().replace('ssh', 'ssh-copy-id', 1)}"
            )
        if isinstance(error, socket.gaierror):
            return DeviceError(f"device {name}: no host {self._host} is known ({error.strerror})")
        if isinstance(error, OSError | EOFError | paramiko.SSHException):
            reason = getattr(error, "strerror", None) or str(error) or "the connection was closed"
            return DeviceError(
                f"device {name}: {address} cannot be reached ({reason}); "
                f"try by hand: {self._ssh_command()}"
            )
        return error


class _SshChannel(Channel):
    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def send(self, content: bytes) -> None:
        with _as_os_errors():
            self._channel.sendall(content)

    def end_input(self) -> None:
        with _as_os_errors():
            self._channel.shutdown_write()

    def receive(self, timeout_s: float) -> Piece | Ended | None:
        channel = self._channel
        # The descriptor is readable when any of output, end of output or end of link is there.
        readable, _, _ = select.select([channel], [], [], timeout_s)
        if channel.recv_ready():
            return Piece("stdout", channel.recv(1 << 16))
        if channel.recv_stderr_ready():
            return Piece("stderr", channel.recv_stderr(1 << 16))
        if not readable:
            return None
        if not channel.status_event.wait(CONNECT_S) or channel.recv_exit_status() < 0:
            raise ConnectionError("the connection was closed")
        return Ended(channel.recv_exit_status())

    def close(self) -> None:
        self._channel.close()


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Give paramiko's own errors as those of the operating system."""
    import paramiko

    try:
        yield
    except (paramiko.SSHException, EOFError) as error:
        raise ConnectionError(str(error) or "the connection was closed") from error


def _fingerprint(key: Any) -> str:
    """A host key as `ssh-keygen -l` shows it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def _text(device: Device, name: str) -> str | None:
    value = device.facts.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise DeviceError(f"device {device.name}: {name} in its connection must be a text")
    return value


def _port(device: Device) -> int | None:
    value = device.facts.get("port")
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= 65535:
        raise DeviceError(
            f"device {device.name}: port in its connection must be a number from 1 to 65535"
        )
    return value


TRANSPORT = SshTransport
