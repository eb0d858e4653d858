"""The user's own connections.toml: how to reach which device. Never part of a repository.

It lies in the user's folder for settings (on Linux ~/.config/bibench), readable by its owner
alone. What bibench writes there keeps comments, order and layout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from bibench_deploy.errors import DeviceError

FILE_NAME = "connections.toml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# Keys that say how to reach a device: adding it anew replaces all of them.
_KEYS = ("transport", "host", "user", "port", "ssh_config", "serial", "python", "work_folder")


def connections_file() -> Path:
    """Where the user's connections are, or would be."""
    from platformdirs import user_config_path

    return user_config_path("bibench") / FILE_NAME


def parse_ssh_address(text: str) -> dict[str, str | int]:
    """Read [USER@]HOST[:PORT]; an IPv6 address with a port stands in brackets.

    Raises:
        DeviceError: the text has another form.

    Example:
        >>> parse_ssh_address("pi@raspberrypi.local:2222")
        {'host': 'raspberrypi.local', 'user': 'pi', 'port': 2222}
        >>> parse_ssh_address("[fe80::1%eth0]")
        {'host': 'fe80::1%eth0'}
    """
    found = re.fullmatch(
        r"(?:(?P<user>[^@:/\s-][^@:/\s]*)@)?"
        r"(?:\[(?P<ip>[0-9a-fA-F:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*))"
        r"(?::(?P<port>\d{1,5}))?",
        text,
    )
    if not found or not 1 <= int(found["port"] or 22) <= 65535 or not text.isprintable():
        raise DeviceError(f'"{text}" is no ssh address; write USER@HOST or USER@HOST:PORT')
    address: dict[str, str | int] = {"host": found["ip"] or found["host"]}
    if found["user"]:
        address["user"] = found["user"]
    if found["port"]:
        address["port"] = int(found["port"])
    return address


def add_connection(name: str, connection: Mapping[str, str | int], title: str | None) -> Path:
    """Write how to reach a device, over what was there for it.

    Args:
        name: of the device, one that bibench knows or a new one.
        connection: `transport`, and the keys that it needs.
        title: for people; None keeps what is there.

    Returns:
        The file.

    Raises:
        DeviceError: the name has another form, or the file is damaged or cannot be written.
    """
    if not _NAME.fullmatch(name) or name == "local":
        raise DeviceError(
            f'"{name}" cannot be the name of a device; take lower-case letters, digits, '
            '".", "_" and "-", but not "local", which is this machine'
        )
    import filelock

    path = connections_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Two of us at once would each keep what the other has added out.
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=30):
            document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else _new_file()
            table = document.setdefault(name, tomlkit.table())
            if not isinstance(table, dict):
                raise DeviceError(f"{path}: {name} stands in no table; write it as [{name}]")
            for key in _KEYS:
                if key not in connection:
                    table.pop(key, None)
            table.update(connection)
            if title is not None:
                table["title"] = title
            _write(path, tomlkit.dumps(document))
    except ParseError as error:
        what = str(error).split(" at line ")[0]
        raise DeviceError(f"{path}, line {error.line}: no valid TOML: {what}") from error
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise DeviceError(f"{path}: no valid TOML: {error}") from error
    except filelock.Timeout as error:
        raise DeviceError(f"{path}: another bibench is writing to it; try again") from error
    except OSError as error:
        raise DeviceError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _new_file() -> tomlkit.TOMLDocument:
    return tomlkit.parse(
        "# How to reach which device; `bibench devices add` writes here, and so may you.\n\n"
    )


def _write(path: Path, text: str) -> None:
    """Replace the file at once; only its owner may read it."""
    target = Path(os.path.realpath(path))  # a link stays a link
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - no path, a descriptor
            file.write(text)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
