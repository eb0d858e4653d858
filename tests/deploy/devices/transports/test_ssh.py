from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import open_transport, ssh
from bibench_deploy.errors import DeviceError


def refusal(device: Device) -> str:
    with pytest.raises(DeviceError) as caught:
        open_transport(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fingerprint(key: Path) -> str:
    command = ["ssh-keygen", "-l", "-f", str(key)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


def test_a_host_key_that_is_not_known_is_refused_with_its_fingerprint(sshd, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").touch()
    config = sshd.config("unknown", UserKnownHostsFile=str(tmp_path / "known_hosts"))
    told = refusal(sshd.device(tmp_path / "work", config))
    assert f"the host key of [127.0.0.1]:{sshd.port} is not known" in told
    assert fingerprint(sshd.folder / "host_key.pub") in told
    assert f"accept it by: ssh -F {config} -p {sshd.port} " in told
    assert (tmp_path / "known_hosts").read_text() == ""


def test_a_host_key_that_has_changed_is_refused_with_the_way_to_accept_it(
    sshd, tmp_path: Path
) -> None:
    key = (sshd.folder / "user_key.pub").read_text().split()[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} ssh-ed25519 {key}\n")
    config = sshd.config("changed", UserKnownHostsFile=str(tmp_path / "known_hosts"))
    told = refusal(sshd.device(tmp_path / "work", config))
    assert "has changed" in told
    assert fingerprint(sshd.folder / "host_key.pub") in told
    forget = f"ssh-keygen -f {tmp_path}/known_hosts -R '[127.0.0.1]:{sshd.port}'"
    assert f"accept it by: {forget} && ssh -F" in told
    # The command does what it promises.
    subprocess.run(["sh", "-c", forget], check=True, capture_output=True)
    assert "is not known" in refusal(sshd.device(tmp_path / "work", config))


def test_keys_that_are_refused_are_said_with_the_way_to_install_one(sshd, tmp_path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
    subprocess.run(command, check=True)
    config = sshd.config("stranger", IdentityFile=str(tmp_path / "other"))
    told = refusal(sshd.device(tmp_path / "work", config))
    assert "refused our keys" in told
    assert "let it know one by: ssh-copy-id -F" in told


def test_a_key_with_a_passphrase_asks_for_the_agent(
    sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "locked")]
    subprocess.run(command, check=True)
    config = sshd.config("locked", IdentityFile=str(tmp_path / "locked"))
    assert "unlock it by: ssh-add" in refusal(sshd.device(tmp_path / "work", config))


def test_a_board_that_is_off_is_said_in_one_line(sshd, free_port: int, tmp_path: Path) -> None:
    told = refusal(sshd.device(tmp_path / "work", port=free_port))
    assert "127.0.0.1 cannot be reached" in told
    assert f"try by hand: ssh -F {sshd.folder}/config -p {free_port}" in told


def test_a_host_that_does_not_exist_is_said_in_one_line(sshd, tmp_path: Path) -> None:
    told = refusal(sshd.device(tmp_path / "work", host="no-such-host.invalid"))
    assert "no-such-host.invalid" in told


def test_a_server_that_is_no_ssh_server_is_said_in_one_line(
    sshd, adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "CONNECT_S", 1)
    told = refusal(sshd.device(tmp_path / "work", port=adbd.daemon.port))
    assert "cannot be reached" in told


def test_the_users_config_gives_host_port_user_and_known_hosts(sshd, tmp_path: Path) -> None:
    config = sshd.config("alias", HostName="127.0.0.1", Port=str(sshd.port))
    facts = {"host": "pi", "ssh_config": str(config), "work_folder": str(tmp_path / "work")}
    with open_transport(Device("board", "a board", "ssh", facts)) as transport:
        assert transport.run(["echo", "hello"], timeout_s=30).stdout == "hello\n"


def test_closing_after_the_link_was_lost_raises_nothing(
    sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = open_transport(sshd.device(tmp_path / "work"))
    (tmp_path / "file").touch()
    transport.push(tmp_path / "file")

    def lost() -> None:
        raise EOFError

    monkeypatch.setattr(transport._connection._sftp, "close", lost)
    transport.close()
    assert not transport._connection.is_connected


def test_a_key_that_only_the_agent_holds_is_used(
    sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            deadline = time.monotonic() + 20
            while not socket.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            add = ["ssh-add", "-q", str(sshd.folder / "user_key")]
            subprocess.run(add, check=True, capture_output=True)
            config = sshd.config("agent", IdentityFile=str(tmp_path / "none"), IdentitiesOnly="no")
            with open_transport(sshd.device(tmp_path / "work", config)) as transport:
                assert transport.run(["echo", "hello"], timeout_s=30).stdout == "hello\n"
        finally:
            agent.terminate()


def test_a_board_behind_another_host_is_reached_by_proxy_jump(sshd, cable, tmp_path: Path) -> None:
    config = sshd.config("jump", cable.port)
    known = tmp_path / "known_hosts"
    known.write_text(
        f"[127.0.0.1]:{cable.port} {sshd.host_key}\n[localhost]:{sshd.port} {sshd.host_key}\n"
    )
    config.write_text(
        f"Host hop\n  HostName 127.0.0.1\n  Port {cable.port}\n"
        f"Host board\n  HostName localhost\n  Port {sshd.port}\n  ProxyJump hop\n"
        f"Host *\n  IdentityFile {sshd.folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {known}\n"
    )
    facts = {"host": "board", "ssh_config": str(config), "work_folder": str(tmp_path / "work")}
    device = Device("board", "a board", "ssh", facts)
    with open_transport(device) as transport:
        assert transport.run(["echo", "hello"], timeout_s=30).stdout == "hello\n"
    assert cable.sent > 0
    # The host in between is checked like the board.
    known.write_text(f"[localhost]:{sshd.port} {sshd.host_key}\n")
    assert f"the host key of [127.0.0.1]:{cable.port} is not known" in refusal(device)


@pytest.mark.parametrize("content", [b"Host *\n  nonsense\n", b"\xff\xfe\n", b"Match x\n"])
def test_a_damaged_ssh_config_is_named(sshd, tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "config"
    config.write_bytes(content)
    told = refusal(sshd.device(tmp_path / "work", config))
    assert told.startswith(f"device board: {config}: ")


@pytest.mark.parametrize("content", [b"host ssh-ed25519 no-base64!\n", b"\xff\xfe\n"])
def test_a_damaged_known_hosts_file_is_named_or_passed_over(
    sshd, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "known_hosts").write_bytes(content)
    config = sshd.config("damaged", UserKnownHostsFile=str(tmp_path / "known_hosts"))
    told = refusal(sshd.device(tmp_path / "work", config))
    assert f"{tmp_path}/known_hosts: " in told or "is not known" in told


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"host": "pi@a", "user": "b"}, "device board: "),
        ({}, "its connection names no host; run: bibench devices add board --ssh USER@HOST"),
        ({"host": 4}, "host in its connection must be a text"),
        ({"host": "a", "port": "22"}, "port in its connection must be a number from 1 to 65535"),
        ({"host": "a", "port": 0}, "port in its connection must be a number"),
        ({"host": "a", "user": ""}, "user in its connection must be a text"),
        ({"host": "a", "ssh_config": "/no/config"}, "no file /no/config, its ssh_config"),
    ],
)
def test_a_connection_that_says_what_cannot_be_is_an_error(
    facts: dict[str, object], told: str
) -> None:
    assert told in refusal(Device("board", "a board", "ssh", facts))
