"""An OpenSSH server on loopback with throw-away keys, for what a board over ssh costs."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bibench_deploy.devices.registry import Device


@contextmanager
def ssh_device() -> Iterator[Device]:
    """A device that reaches this machine over ssh; ends the server and removes its files."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        raise SystemExit("this benchmark needs an ssh server; run: apt-get install openssh-server")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        # A bash that is not the first one leaves its user's start-up files alone: they differ
        # from machine to machine, and a board has its own.
        (folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\nSubsystem sftp internal-sftp\nSetEnv SHLVL=2\n"
        )
        public = " ".join((folder / "host_key.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
        (folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known_hosts\n"
        )
        command = [program, "-D", "-f", str(folder / "sshd_config")]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port)
            facts = {
                "host": "127.0.0.1",
                "port": port,
                "user": getpass.getuser(),
                "ssh_config": str(folder / "ssh_config"),
                "work_folder": str(folder / "work"),
            }
            yield Device("board", "this machine over ssh", "ssh", facts)
        finally:
            server.terminate()
            server.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit("the ssh server did not start")
