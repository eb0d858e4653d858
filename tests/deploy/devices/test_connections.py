from __future__ import annotations

from pathlib import Path

import pytest

from bibench_deploy.devices.connections import (
    add_connection,
    connections_file,
    parse_ssh_address,
)
from bibench_deploy.devices.registry import find_device
from bibench_deploy.errors import DeviceError

SSH = {"transport": "ssh", "host": "raspberrypi.local", "user": "pi"}


def test_a_new_file_may_be_read_by_its_owner_alone() -> None:
    file = add_connection("pi4", SSH, None)
    assert file == connections_file()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    pi4 = find_device("pi4")
    assert (pi4.title, pi4.transport, pi4.facts["host"]) == (
        "Raspberry Pi 4B", "ssh", "raspberrypi.local"
    )  # fmt: skip


def test_an_edit_keeps_comments_order_and_what_others_wrote() -> None:
    file = connections_file()
    file.parent.mkdir(parents=True)
    file.write_text(
        "# my boards\n\n[pi4]  # on the shelf\ntransport = 'ssh'\nhost = 'old'\nport = 2222\n"
        "cores = 4 # mine\n\n# the phone\n[kirin990]\ntransport = 'adb'\nserial = 'A'\n"
    )
    add_connection("pi4", SSH, "the old one")
    text = file.read_text()
    for kept in ("# my boards", "[pi4]  # on the shelf", "cores = 4 # mine", "# the phone"):
        assert kept in text
    assert text.index("[pi4]") < text.index("[kirin990]")
    assert "2222" not in text
    assert find_device("pi4").title == "the old one"
    assert find_device("kirin990").facts["serial"] == "A"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.parent.iterdir() if "lock" not in entry.name] == [
        "connections.toml"
    ]


def test_another_transport_takes_the_place_of_the_first() -> None:
    add_connection("pi4", {**SSH, "port": 2222}, None)
    add_connection("pi4", {"transport": "adb", "serial": "A"}, None)
    assert dict(find_device("pi4").facts).keys().isdisjoint({"host", "user", "port"})


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.toml"
    target.write_text("# kept in a repository\n")
    connections_file().parent.mkdir(parents=True)
    connections_file().symlink_to(target)
    add_connection("pi4", SSH, None)
    assert connections_file().is_symlink()
    assert "[pi4]" in target.read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pi4\n", "connections.toml, line 1: no valid TOML"),
        ("pi4 = 3\n", "pi4 stands in no table; write it as"),
        ("[pi4]\n[pi4]\n", "connections.toml, line 2: no valid TOML"),
    ],
)
def test_a_damaged_file_is_left_as_it_is(text: str, told: str) -> None:
    connections_file().parent.mkdir(parents=True)
    connections_file().write_text(text)
    with pytest.raises(DeviceError, match=told):
        add_connection("pi4", SSH, None)
    assert connections_file().read_text() == text


@pytest.mark.parametrize("name", ["", "local", "Pi4", "-pi", "pi 4", "a/b", "x" * 65, "pi4\n"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="cannot be the name of a device"):
        add_connection(name, SSH, None)
    assert not connections_file().exists()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("raspberrypi", {"host": "raspberrypi"}),
        ("pi@10.0.0.2", {"host": "10.0.0.2", "user": "pi"}),
        ("pi@[::1]:22", {"host": "::1", "user": "pi", "port": 22}),
        ("first.last@host:65535", {"host": "host", "user": "first.last", "port": 65535}),
    ],
)
def test_an_address_is_read_in_its_parts(text: str, address: dict[str, object]) -> None:
    assert parse_ssh_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "@host", "pi@", "host:", "host:0", "host:65536", "host:x", "-oProxyCommand=x", "a b",
     "a;b", "pi@-x", "::1", "host\n", "pi@ho/st", "ho'st", "$(id)"],
)  # fmt: skip
def test_an_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="is no ssh address; write USER@HOST"):
        parse_ssh_address(text)
