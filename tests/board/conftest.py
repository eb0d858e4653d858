"""An emulated aarch64 board: Debian arm64 in a folder, executed by qemu, reached over ssh.

Needs root, the network (Debian's mirror and PyPI) and about five minutes; `make test-board`
says what is missing. Everything is undone afterwards: the system runs in name spaces of its own,
which end with it, and mounts nothing outside them.

debootstrap chooses, fetches and verifies the packages; they are unpacked here instead of being
configured by an emulated dpkg, which would take minutes for a system that only runs sh, sshd and
python3.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
PACKAGES = ("onnxruntime", "numpy<2")
PROGRAMS = {
    "debootstrap": "debootstrap",
    "dpkg-deb": "dpkg",
    "qemu-aarch64-static": "qemu-user-static",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The magic of an aarch64 ELF program, as Debian's qemu-user-static registers it. F: the
# interpreter is opened now, so that it need not be inside the folder.
REGISTRATION = (
    r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    r":/usr/bin/qemu-aarch64-static:OCF"
)
# onnxruntime's cpuinfo looks for an ARM core here and crashes on the text of an x86 host.
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey /etc/ssh/board_key
UsePAM no
StrictModes no
PermitRootLogin yes
PidFile none
Subsystem sftp internal-sftp
"""
START = """\
set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount -t sysfs -o ro sysfs "$1/sys"
mount --bind "$2" "$1/proc/cpuinfo"
mount -t tmpfs tmpfs "$1/dev/shm"
exec chroot "$1" /usr/sbin/sshd -D -e -f /etc/ssh/board_config
"""


@dataclass(frozen=True)
class Board:
    """The running board.

    Attributes:
        root: its file system, to put files in and look at.
        port: of its ssh server on loopback.
        environment: for commands of bibench that are to know it as the device `board`.
    """

    root: Path
    port: int
    environment: dict[str, str] = field(repr=False)

    def bibench(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user would."""
        program = "from bibench_deploy.__main__ import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env=self.environment, cwd=cwd, capture_output=True, text=True, check=False,
            timeout=1200,
        )  # fmt: skip

    def ssh(self, *words: str) -> None:
        """Run a command there; its failure is one of the test."""
        settings = self.root.parent / "ssh_config"
        command = ["ssh", "-F", settings, "-p", str(self.port), "root@127.0.0.1", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr

    def processes(self) -> list[str]:
        """Command lines of what runs on it, its ssh server left out."""
        lines = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "root").readlink() == self.root:
                    lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return [line for line in lines if "sshd" not in line]


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    check_prerequisites()
    folder = tmp_path_factory.mktemp("board")
    root = folder / "root"
    with registered():
        build(root, folder)
        install_packages(root)
        port = free_port()
        set_up_ssh(root, folder, port)
        (folder / "cpuinfo").write_text(CPUINFO)
        with (folder / "sshd.log").open("wb") as log:
            # When this process ends, so do all of its name space, and with them the mounts.
            process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child",
                 "sh", "-c", START, "board", root, folder / "cpuinfo"],
                stdout=log, stderr=log,
            )  # fmt: skip
            try:
                wait_for(port, process, folder / "sshd.log")
                yield Board(root, port, configured(folder, port))
            finally:
                process.kill()
                process.wait(30)
    shutil.rmtree(root)


def check_prerequisites() -> None:
    missing = sorted({package for name, package in PROGRAMS.items() if find(name) is None})
    if missing:
        pytest.fail(f"an emulated board needs {', '.join(missing)}; "
                    f"run: apt-get install {' '.join(missing)}")  # fmt: skip
    if os.geteuid() != 0:
        pytest.fail("an emulated board needs root: it mounts, registers qemu, and changes root")


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class registered:  # noqa: N801 - used like a function
    """Let the kernel hand aarch64 programs to qemu; undone only if it was not so before."""

    def __enter__(self) -> None:
        self._mounted = not (BINFMT / "register").exists()
        if self._mounted:
            mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]
            subprocess.run(mount, check=True)
        self._registered = not any(BINFMT.glob("qemu-aarch64*"))
        if self._registered:
            (BINFMT / "register").write_text(REGISTRATION)

    def __exit__(self, *_: object) -> None:
        if self._registered:
            (BINFMT / "qemu-aarch64").write_text("-1")
        if self._mounted:
            subprocess.run(["umount", str(BINFMT)], check=True)


def debian_mirror() -> str:
    """The mirror in this machine's own apt sources."""
    folder = Path("/etc/apt")
    lists = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for file in lists:
        with suppress(OSError):
            for line in file.read_text().splitlines():
                found = re.match(
                    r"(?:URIs:|deb(?:\s+\[.*\])?)\s+(https?://\S+/debian)/?(?:\s|$)", line
                )
                if found:
                    return found[1]
    raise RuntimeError("no mirror of Debian in /etc/apt; add one, as apt itself needs it")


def build(root: Path, folder: Path) -> None:
    """Fill a folder with Debian arm64: sh, coreutils, python3, sshd."""
    command = [
        find("debootstrap"), "--arch=arm64", "--foreign", "--variant=minbase",
        "--include=python3,openssh-server", SUITE, root, debian_mirror(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"debootstrap failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
        ) as tar:
            unpack = ["tar", "-x", "--keep-directory-symlink", "-C", root]
            subprocess.run(unpack, stdin=tar.stdout, check=True)
        package.unlink()
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    with (root / "etc/passwd").open("a") as users:
        users.write("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n")
    if (root / "proc").is_symlink():  # debootstrap does so inside a container
        (root / "proc").unlink()
    for name in ("proc", "run/sshd", "root/.ssh"):
        (root / name).mkdir(parents=True, exist_ok=True)


def install_packages(root: Path) -> None:
    """Wheels for aarch64, put in place from here: an emulated pip would take minutes."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in (35, 34, 31, 28, 27, 24, 17)]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", PYTHON,
        *(f"--platform={platform}" for platform in [*platforms, "manylinux2014_aarch64"]),
        "--target", root / "usr/lib/python3/dist-packages", *PACKAGES,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def set_up_ssh(root: Path, folder: Path, port: int) -> None:
    for key in (root / "etc/ssh/board_key", folder / "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "user_key.pub", root / "root/.ssh/authorized_keys")
    (root / "etc/ssh/board_config").write_text(SSHD_CONFIG.format(port=port))


def configured(folder: Path, port: int) -> dict[str, str]:
    """Say how to reach the board, in settings of its own."""
    key = " ".join((folder / "root/etc/ssh/board_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    environment["XDG_DATA_HOME"] = str(folder / "data")
    board = Board(folder / "root", port, environment)
    added = board.bibench(
        "devices", "add", "board", "--ssh", f"root@127.0.0.1:{port}",
        "--ssh-config", folder / "ssh_config", "--title", "an emulated board", cwd=folder,
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    return environment


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as link:
            if link.recv(4) == b"SSH-":
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no ssh server: {log.read_text()}"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
