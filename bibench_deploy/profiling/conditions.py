"""How a device was doing while it measured: temperature, clocks, load, throttle flags.

One command runs beside the whole sweep (watch.sh) and says it once a second; each block keeps what
was heard while it ran. A device that shows nothing, or no `sh` that can say it, leaves blocks
without.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bibench_deploy.devices.transports._transport import Transport

EVERY_S = 1
_WATCH = Path(__file__).with_name("watch.sh")
# What the firmware of a Raspberry Pi says of this moment: voltage too low, clock capped,
# throttled, soft temperature limit. Higher bits are of the time since its start.
# Source: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
_NOW = {1: "under-voltage", 2: "clock capped", 4: "throttled", 8: "soft temperature limit"}


@dataclass(frozen=True)
class Conditions:
    """What a device showed of itself during a block; None for what it does not show.

    Attributes:
        temperature_c: highest of the processor's sensors, in °C.
        clock_mhz: of the fastest core in use; median over the readings.
        busy_cores: how many cores' time was used, by whatever process; mean.
        flags: of the Raspberry Pi's firmware, all that were seen, as a number.
    """

    temperature_c: float | None = None
    clock_mhz: int | None = None
    busy_cores: float | None = None
    flags: int | None = None

    @property
    def limits(self) -> tuple[str, ...]:
        """What held the processor back at some moment of the block, in the firmware's words."""
        return tuple(name for bit, name in _NOW.items() if (self.flags or 0) & bit)


@dataclass(frozen=True)
class Reading:
    """One line of watch.sh, and when it came, in seconds of our own clock."""

    at_s: float
    temperature_c: float | None
    clocks_mhz: dict[int, int]
    busy: int | None
    idle: int | None
    flags: int | None


class Watch:
    """Keeps what is heard of a device while its sweep runs."""

    def __init__(self, cores: Collection[int] | None, core_count: int | None) -> None:
        self._cores = cores
        self._core_count = core_count
        self._readings: list[Reading] = []

    def hear(self, line: str) -> None:
        """Take in a line of watch.sh; one that is none is passed over."""
        reading = parse_reading(line, time.monotonic())
        if reading is not None:
            self._readings.append(reading)

    def since(self, begun_at_s: float) -> Conditions | None:
        """Give what was heard since a time of `time.monotonic`; None for nothing."""
        # A block that is shorter than the time between two readings has the one before.
        first = begun_at_s - EVERY_S
        heard = [reading for reading in self._readings if reading.at_s >= first]
        before = [reading for reading in self._readings if reading.at_s < first][-1:]
        # Only blocks look back, and never behind the one before.
        self._readings = [*before, *heard]
        return summarize_readings(heard, before, self._cores, self._core_count)


@contextmanager
def watched(
    transport: Transport, cores: Collection[int] | None, core_count: int | None
) -> Iterator[Watch]:
    """Listen to how a device is doing, inside a `with` block.

    Args:
        transport: to the device.
        cores: those that the runs are kept on; None for all.
        core_count: how many the device has; None where unknown.
    """
    watch = Watch(cores, core_count)
    script = _WATCH.read_text(encoding="utf-8")
    command = ["sh", "-c", script, "bibench", str(EVERY_S), "/sys", "/proc"]
    with transport.listening(command, watch.hear):
        yield watch


def parse_reading(line: str, at_s: float) -> Reading | None:
    """Read a line of watch.sh; None where it is none."""
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    if not {"t", "c", "b", "i", "f"} <= fields.keys():
        return None
    clocks = {}
    for entry in fields["c"].split(","):
        core, khz = (_whole(text) for text in entry.partition(":")[::2])
        if core is not None and khz is not None:
            clocks[core] = khz // 1000
    temperature = _whole(fields["t"])
    flags = re.fullmatch(r"0x[0-9a-fA-F]{1,8}", fields["f"])
    return Reading(
        at_s=at_s,
        # Thousandths of a degree; some vendors give whole degrees.
        temperature_c=temperature and temperature / (1000 if abs(temperature) >= 1000 else 1),
        clocks_mhz=clocks,
        busy=_whole(fields["b"]),
        idle=_whole(fields["i"]),
        flags=int(flags[0], 16) if flags else None,
    )


def summarize_readings(
    heard: Sequence[Reading],
    before: Sequence[Reading],
    cores: Collection[int] | None,
    core_count: int | None,
) -> Conditions | None:
    """Reduce the readings of a block.

    Args:
        heard: while it ran.
        before: the last one before, if any: ticks count from there.
        cores: that it was kept on; None for all.
        core_count: of the device.
    """
    if not heard:
        return None
    temperatures = [one.temperature_c for one in heard if one.temperature_c is not None]
    fastest = [
        max(known)
        for one in heard
        if (known := [mhz for core, mhz in one.clocks_mhz.items() if not cores or core in cores])
    ]
    flags = [one.flags for one in heard if one.flags is not None]
    seen = 0
    for one in flags:
        seen |= one
    found = Conditions(
        temperature_c=max(temperatures, default=None),
        clock_mhz=round(median(fastest)) if fastest else None,
        busy_cores=_busy_cores([*before, *heard], core_count),
        flags=seen if flags else None,
    )
    return None if found == Conditions() else found


def held_back(conditions: Sequence[Conditions]) -> str | None:
    """Say what the firmware reported that slows a processor; None for nothing."""
    limits = dict.fromkeys(name for one in conditions for name in one.limits)
    return f"the firmware reported: {', '.join(limits)}" if limits else None


def clock_fall(conditions: Sequence[Conditions]) -> str | None:
    """Say how far the clock fell from the first third of a cell's blocks to the last."""
    clocks = [one.clock_mhz for one in conditions if one.clock_mhz is not None]
    third = len(clocks) // 3
    if third == 0:
        return None
    first, last = median(clocks[:third]), median(clocks[-third:])
    return f"the clock fell from {first:.0f} to {last:.0f} MHz" if last < first else None


def other_load(conditions: Conditions | None, threads: int, core_count: int | None) -> float | None:
    """Estimate what other programs used beside a runner that cannot tell, as a share from 0 to 1.

    Cores that were busy, less the threads of the run, over all cores.
    """
    if conditions is None or conditions.busy_cores is None or not core_count:
        return None
    return round(max(0.0, conditions.busy_cores - threads) / core_count, 3)


def _busy_cores(readings: Sequence[Reading], core_count: int | None) -> float | None:
    counted = [(one.busy, one.idle) for one in readings if one.busy is not None]
    if len(counted) < 2 or core_count is None:
        return None
    (busy_before, idle_before), (busy_after, idle_after) = counted[0], counted[-1]
    busy = (busy_after or 0) - (busy_before or 0)
    ticks = busy + (idle_after or 0) - (idle_before or 0)
    return round(core_count * busy / ticks, 2) if ticks > 0 and busy >= 0 else None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def conditions_from(fields: Mapping[str, Any]) -> Conditions:
    """Read conditions as a results file has them; a field of another type counts as not shown."""

    def number(name: str) -> Any:
        value = fields.get(name)
        return value if type(value) in (int, float) else None

    return Conditions(*(number(name) for name in Conditions.__dataclass_fields__))
