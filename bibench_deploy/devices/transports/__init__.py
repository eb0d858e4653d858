"""The ways to reach a device, one per file; the file's name is the transport's name.

Each file holds one subclass of `Transport` under the name `TRANSPORT`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from bibench_deploy.errors import DeviceError, UnknownNameError

if TYPE_CHECKING:
    from bibench_deploy.devices.registry import Device
    from bibench_deploy.devices.transports._transport import Transport


@cache
def transport_names() -> tuple[str, ...]:
    """Name every transport, sorted; finds the files without importing them.

    Example:
        >>> "local" in transport_names()
        True
    """
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def open_transport(device: Device) -> Transport:
    """Reach a device. Use the result in a `with` block.

    Raises:
        UnknownNameError: no file here is named as the device's transport.
        DeviceError: the device names no transport, or cannot be reached.
    """
    check_connected(device)
    assert device.transport is not None
    if device.transport not in transport_names():
        raise UnknownNameError("transport", device.transport, transport_names())
    module = importlib.import_module(f"{__name__}.{device.transport}")
    transport: Transport = module.TRANSPORT(device)
    return transport


def check_connected(device: Device) -> None:
    """Make sure that it is known how to reach a device, which may then still be out of reach.

    Raises:
        DeviceError: the device names no transport.
    """
    if device.transport is None:
        raise DeviceError(
            f"device {device.name} ({device.title}) is known, but not how to reach it; run: "
            f"bibench devices add {device.name} --ssh USER@HOST, or --adb SERIAL"
        )
