"""The devices that can be named after `--device`: devices.toml → `Device`.

Three files are read, and for a device in several the later one adds to and replaces what the
earlier one says, key by key:

1. the devices.toml that comes with bibench;
2. ./devices.toml, in the folder where bibench is started;
3. the user's connections.toml: how to reach which device (see `connections`).

`local` always exists, even when no file names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from bibench_deploy.devices.connections import connections_file
from bibench_deploy.devices.transports import transport_names
from bibench_deploy.errors import DeviceError, UnknownNameError

FILE_NAME = "devices.toml"


@dataclass(frozen=True)
class Device:
    """A machine that models run on: what it is, and the transport that reaches it.

    Attributes:
        name: as after `--device`.
        title: for people, for example "Raspberry Pi 4B".
        transport: name of a file in devices/transports; None where the device is known, but
            nobody has said how to reach it.
        facts: the other keys of its table, unread.
    """

    name: str
    title: str
    transport: str | None
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def read_devices(files: Sequence[Path]) -> dict[str, Device]:
    """Read device files, later ones over earlier ones; missing files count as empty.

    Returns:
        By name, in the order in which the names first appear, `local` before all.

    Raises:
        DeviceError: a file is no TOML, or says of a device what cannot be; names the file, and
            the line or the table.
    """
    tables: dict[str, dict[str, Any]] = {"local": {"title": "this machine", "transport": "local"}}
    for file in files:
        for name, table in _read_tables(file).items():
            tables.setdefault(name, {}).update(table)
    return {name: _device(name, table) for name, table in tables.items()}


def load_devices() -> dict[str, Device]:
    """Read the packaged devices.toml, then ./devices.toml, then the user's connections.toml.

    Raises:
        DeviceError: as `read_devices`.
    """
    return read_devices([_packaged_file(), Path(FILE_NAME), connections_file()])


def find_device(name: str) -> Device:
    """Look one device up by name.

    Raises:
        UnknownNameError: no file names it.
        DeviceError: as `read_devices`.
    """
    devices = load_devices()
    if name not in devices:
        raise UnknownNameError("device", name, sorted(devices))
    return devices[name]


def _packaged_file() -> Path:
    in_wheel = Path(__file__).parent / FILE_NAME
    # In a checkout the file stays where people look for it: at the root.
    return in_wheel if in_wheel.is_file() else Path(__file__).parents[2] / FILE_NAME


def _read_tables(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomlkit.parse(file.read_text(encoding="utf-8")).unwrap()
    except FileNotFoundError:
        return {}
    except ParseError as error:
        # tomlkit says "… at line 3 col 5" at the end; one place is enough.
        what = str(error).split(" at line ")[0]
        raise DeviceError(f"{file}, line {error.line}: no valid TOML: {what}") from error
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise DeviceError(f"{file}: no valid TOML: {error}") from error
    except OSError as error:
        raise DeviceError(f"{file}: cannot be read: {error.strerror}") from error
    for name, table in content.items():
        if not isinstance(table, dict):
            raise DeviceError(f"{file}: {name} stands in no table; write one [table] per device")
        if "title" in table and not isinstance(table["title"], str):
            raise DeviceError(f"{file} [{name}]: title must be a text")
        transport = table.get("transport", "local")
        if transport not in transport_names():
            raise DeviceError(
                f'{file} [{name}]: unknown transport "{transport}"; '
                f"one of: {', '.join(transport_names())}"
            )
    return content


def _device(name: str, table: Mapping[str, Any]) -> Device:
    facts = {key: value for key, value in table.items() if key not in ("title", "transport")}
    return Device(
        name=name,
        title=table.get("title", name),
        transport=table.get("transport"),
        facts=MappingProxyType(facts),
    )
