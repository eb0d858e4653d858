"""Hold a device's clocks up while it measures: `--pin`.

pin.sh sets the frequency governor to `performance` and waits; when its listener is gone, for
whatever reason, it puts back what was there.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from bibench_deploy.devices.transports._transport import Transport

CPUS = "/sys/devices/system/cpu"
_PIN = Path(__file__).with_name("pin.sh")
_ANSWER_S = 30.0


@contextmanager
def pinned(transport: Transport, cores: Sequence[int] | None, cpus: str = CPUS) -> Iterator[None]:
    """Keep the governor at `performance` inside a `with` block.

    Args:
        transport: to the device.
        cores: whose governor; None for all.
        cpus: the folder of the cores on the device.

    Raises:
        DeviceError: the device has no governor, or we may not set it.
    """
    said: queue.Queue[str] = queue.Queue()
    command = ["sh", "-c", _PIN.read_text(encoding="utf-8"), "bibench", cpus]
    with transport.listening([*command, *map(str, cores or ())], said.put):
        try:
            word, _, file = said.get(timeout=_ANSWER_S).partition(" ")
        except queue.Empty:
            word, file = "silent", ""
        if word != "pinned":
            name = transport.device.name
            reasons = {
                "denied": f"may not write {file}; --pin needs root there (adb root, ssh as root), "
                "or leave --pin out",
                "odd": f"shows no governor's name in {file}, so none is set; leave --pin out",
                "none": "shows no frequency governor, so there is none to set; leave --pin out",
            }
            reason = reasons.get(word, "its sh cannot set the governor; leave --pin out")
            raise DeviceError(f"device {name}: {reason}")
        yield
