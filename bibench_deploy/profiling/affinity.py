"""Which cores a sweep is kept on: `--cpus big`, `little`, `0-3` or `0,2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bibench_deploy.errors import DeviceError

if TYPE_CHECKING:
    from bibench_deploy.profiling.environment import Environment

_MOST_CORES = 4096


def choose_cores(
    text: str, environment: Environment, device: str, threads: Sequence[int]
) -> tuple[int, ...]:
    """Find the cores that a user means.

    Args:
        text: `little` for the slowest cluster, `big` for all others, or numbers and ranges.
        environment: of the device.
        device: its name, for messages.
        threads: thread counts that will run there.

    Raises:
        DeviceError: the text has another form, or names what the device does not have; it has no
            `taskset`; or there are more threads than cores.
    """
    place = f"device {device}: --cpus {text}"
    if not environment.has_taskset:
        raise DeviceError(
            f"{place}: it has no taskset, which keeps a program on cores"
            + (" (macOS has no such thing)" if environment.system == "Darwin" else "")
            + "; leave --cpus out"
        )
    if text in ("big", "little"):
        cores = _cluster_cores(text, environment, place)
    else:
        cores = _listed_cores(text, place)
    there = {number for cluster in environment.clusters for number in cluster.numbers}
    if there and (missing := sorted(set(cores) - there)):
        raise DeviceError(f"{place}: it has no core {missing[0]}; it has {ranges(sorted(there))}")
    if max(threads) > len(cores):
        raise DeviceError(
            f"{place}: {max(threads)} threads do not fit on {len(cores)} "
            f"{'core' if len(cores) == 1 else 'cores'}; give fewer --threads or more --cpus"
        )
    return cores


def taskset(cores: Sequence[int] | None) -> list[str]:
    """Give the words that keep the command behind them on cores; none for all of them.

    A mask is what both util-linux and Android's toybox take.

    Example:
        >>> taskset((0, 1, 5)), taskset(None)
        (['taskset', '23'], [])
    """
    return [] if cores is None else ["taskset", f"{sum(1 << core for core in cores):x}"]


def ranges(cores: Sequence[int]) -> str:
    """Write sorted core numbers briefly.

    Example:
        >>> ranges((0, 1, 2, 5))
        '0-2,5'
    """
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _cluster_cores(text: str, environment: Environment, place: str) -> tuple[int, ...]:
    clusters = [cluster for cluster in environment.clusters if cluster.numbers]
    if len({cluster.max_mhz for cluster in clusters}) < 2:
        raise DeviceError(
            f"{place}: it shows no cores of different clocks; name cores by number, such as 0-1"
        )
    slowest = min(cluster.max_mhz or 0 for cluster in clusters)
    return tuple(
        sorted(
            number
            for cluster in clusters
            if ((cluster.max_mhz or 0) == slowest) == (text == "little")
            for number in cluster.numbers
        )
    )


def _listed_cores(text: str, place: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        if match is None:
            raise DeviceError(f"{place}: write big, little, or numbers such as 0-3 or 0,2")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= _MOST_CORES:
            raise DeviceError(f"{place}: {part.strip()} is no range of cores")
        found.update(range(first, last + 1))
    return tuple(sorted(found))
