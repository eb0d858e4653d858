"""Real servers on loopback, with throw-away keys: what the transports are tested against."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bibench_deploy.devices.registry import Device


@pytest.fixture(autouse=True)
def no_connections_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(name="free_port")
def a_free_port() -> int:
    """A port that nobody listens on."""
    return free_port()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(is_true: Callable[[], object], what: str = "", seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain {what}")
        time.sleep(0.02)


def running(marker: str) -> list[int]:
    """Processes that have a text in their command line and are no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            process = int(entry.name)
            arguments = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if marker.encode() in arguments and process != os.getpid() and state != "Z":
                found.append(process)
    return found


def children(process: int) -> list[int]:
    """A process's descendants, itself not counted."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    return found


@dataclass
class Sshd:
    """An OpenSSH server of one test session; its files lie in a folder of their own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def config(self, name: str = "config", port: int | None = None, **options: str) -> Path:
        """Write an ssh_config that knows this server."""
        port = port or self.port
        known = self.folder / f"{name}_known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {self.host_key}\n")
        settings = {
            "IdentityFile": str(self.folder / "user_key"),
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(known),
        }
        settings.update(options)
        path = self.folder / name
        lines = [f"  {key} {value}" for key, value in settings.items()]
        path.write_text("\n".join(["Host *", *lines, ""]))
        return path

    def device(self, work_folder: Path, config: Path | None = None, **facts: object) -> Device:
        there = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "ssh_config": str(config or self.config()),
            "work_folder": str(work_folder),
            **facts,
        }
        return Device("board", "a board", "ssh", there)

    def cut(self) -> None:
        """Kill every session of the server, as a broken cable would end them."""
        listening = self.process.pid
        for child in children(listening):
            with suppress(OSError):
                name = Path(f"/proc/{child}/comm").read_text()
                if name.startswith("sshd"):
                    os.kill(child, signal.SIGKILL)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.fail("these tests need an ssh server; run: apt-get install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o755)
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        "MaxStartups 100\nMaxSessions 50\nSubsystem sftp internal-sftp\nPrintMotd no\n"
        # A bash that is not the first one leaves the start-up files of its user alone.
        "SetEnv SHLVL=2\n"
    )
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, stdout=log
    )

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
            return True
        return False

    try:
        wait_until(answers, "for sshd")
        yield Sshd(folder, port, process)
    finally:
        process.terminate()
        process.wait(10)
        log.close()


class Cable:
    """A connection to a server that can be cut, at once or after some bytes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_after: int | None = None
        self.sent = 0
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                threading.Thread(target=self._join, args=(near, far), daemon=True).start()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
        with near, far:
            back.start()
            self._pump(near, far, True)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 15):
                self.sent += len(content) if counts else 0
                if self.cut_after is not None and self.sent > self.cut_after:
                    self.cut()
                    return
                sink.sendall(content)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


@pytest.fixture
def cable(sshd: Sshd) -> Iterator[Cable]:
    """A way to the ssh server that can be cut."""
    made = Cable(sshd.port)
    yield made
    made.close()


@dataclass
class Adb:
    """A device that a real adb server knows; both run for one test session."""

    daemon: Any
    serial: str
    program: str

    def reconnect(self) -> None:
        """Plug it in again."""
        for word in ("disconnect", "connect"):
            command = [self.program, word, self.serial]
            subprocess.run(command, check=False, capture_output=True, timeout=30)

    def device(self, work_folder: Path, **facts: object) -> Device:
        there = {"serial": self.serial, "work_folder": str(work_folder), **facts}
        return Device("board", "a board", "adb", there)


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program of a real adb server on a port of its own, with a home of its own."""
    from adbutils import adb_path

    home = tmp_path_factory.mktemp("adb")
    environment = {"ANDROID_ADB_SERVER_PORT": str(free_port()), "HOME": str(home)}
    environment |= {"ANDROID_SDK_HOME": str(home), "TMPDIR": str(home)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name != "HOME":
                patch.setenv(name, value)
        started = {**os.environ, **environment}
        subprocess.run([adb_path(), "start-server"], env=started, check=True, capture_output=True)
        try:
            yield adb_path()
        finally:
            subprocess.run([adb_path(), "kill-server"], env=started, check=False, timeout=20)


@pytest.fixture(scope="session")
def make_adb(adb_server: str) -> Iterator[Callable[[str], Adb]]:
    """make_adb(features): a device of one's own."""
    made: list[Adb] = []

    def make(features: str) -> Adb:
        daemon = load_adb_daemon().AdbDaemon(features)
        made.append(Adb(daemon, f"127.0.0.1:{daemon.port}", adb_server))
        made[-1].reconnect()
        return made[-1]

    yield make
    for adb in made:
        command = [adb_server, "disconnect", adb.serial]
        subprocess.run(command, check=False, capture_output=True, timeout=30)
        adb.daemon.close()


@pytest.fixture(scope="session")
def adbd(make_adb: Callable[[str], Adb]) -> Adb:
    return make_adb("shell_v2,cmd")


def load_adb_daemon() -> Any:
    """The module beside this file; tests are no package."""
    spec = importlib.util.spec_from_file_location(
        "adb_daemon", Path(__file__).with_name("adb_daemon.py")
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
