"""Go on with a sweep that was interrupted: which file, and whether it is the same sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bibench_deploy.errors import ResultsError
from bibench_deploy.profiling.affinity import ranges
from bibench_deploy.profiling.journal import PlannedCell, Results, read_results

# What of a fingerprint makes it the same machine.
MACHINE = ("machine", "cpu", "cores")


@dataclass(frozen=True)
class BegunSweep:
    """What a results file was begun for, as one would ask for it again.

    Attributes:
        path: the file.
        directories: folders of its models, as they were given; FP32 twins lie inside theirs.
        device: name of the device.
        threads: thread counts.
        preset: name of the preset.
        cpus: the cores that it was kept on, as `--cpus` takes them; None for all.
        is_pinned: whether its governor was held.
    """

    path: Path
    directories: list[Path]
    device: str
    threads: tuple[int, ...]
    preset: str
    cpus: str | None = None
    is_pinned: bool = False


def read_begun_sweep(path: Path) -> BegunSweep:
    """Say what a results file was begun for.

    Raises:
        ResultsError: it is no results file, is damaged, or names folders that are not here.
    """
    results = read_results(path)
    twins = {artifact.twin for artifact in results.artifacts.values()}
    directories = [
        Path(artifact.path) for id_, artifact in results.artifacts.items() if id_ not in twins
    ]
    for directory in directories:
        if not directory.is_dir():
            raise ResultsError(
                f"{path}: its model folder {directory} is not here; "
                "name the folders that were measured, and the same threads"
            )
    keys = [cell.key for cell in results.header.planned]
    if not directories or not keys:
        raise ResultsError(f"{path}: was interrupted before it named its models; start anew")
    return BegunSweep(
        path=path,
        directories=directories,
        device=keys[0].device,
        threads=tuple(sorted({key.threads for key in keys})),
        preset=results.header.preset,
        cpus=None if results.header.cpus is None else ranges(results.header.cpus),
        is_pinned=results.header.is_pinned,
    )


def newest_unfinished(
    folder: Path, planned: Sequence[PlannedCell] | None = None, device: str | None = None
) -> Path:
    """Find the newest results file in a folder that lacks blocks.

    Args:
        folder: where to look; not in folders inside it.
        planned: the cells that it must be of; None for any.
        device: that it must be of; None for any.

    Raises:
        ResultsError: there is none.
    """
    files = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        try:
            results = read_results(path)
        except ResultsError:
            continue
        devices = {cell.key.device for cell in results.header.planned}
        if not _lacks_blocks(results) or (device is not None and devices != {device}):
            continue
        if planned is None or tuple(planned) == results.header.planned:
            return path
    what = "sweep" if planned is None else "sweep of these models, threads and preset"
    what += f" on {device}" if device is not None else ""
    raise ResultsError(
        f"no unfinished {what} in ./{folder}; name its file by --out, or leave --resume out"
    )


def check_same_sweep(
    begun: Results,
    planned: Sequence[PlannedCell],
    preset: str,
    cores: Sequence[int] | None = None,
    *,
    is_pinned: bool = False,
) -> None:
    """Make sure that a file was begun for the sweep that is to go on.

    Raises:
        ResultsError: it was not; says in what they differ.
    """
    was, now = begun.header.planned, tuple(planned)
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("preset", begun.header.preset, preset),
        ("devices", _values(was, "device"), _values(now, "device")),
        ("threads", _values(was, "threads"), _values(now, "threads")),
        ("models", _values(was, "artifact"), _values(now, "artifact")),
        ("cores", _cores(begun.header.cpus), _cores(cores)),
        ("a governor", _governor(begun.header.is_pinned), _governor(is_pinned)),
    )
    for name, before, after in pairs:
        if before != after:
            raise ResultsError(
                f"{begun.path}: begun for {name} {before}, not {after}; "
                "go on with the same, or choose another --out"
            )
    if was != now:
        raise ResultsError(f"{begun.path}: begun for other cells; choose another --out")


def check_same_machine(begun: Results, environment: Mapping[str, Any]) -> None:
    """Make sure that a file was begun on this machine.

    Raises:
        ResultsError: it was not; says in what they differ.
    """
    for name in MACHINE:
        before, after = begun.header.environment.get(name), environment.get(name)
        if before != after:
            raise ResultsError(
                f"{begun.path}: begun on another machine: {name} {before}, not {after}; "
                "choose another --out"
            )


def _lacks_blocks(results: Results) -> bool:
    done = {key: cell.block_count for key, cell in results.cells.items()}
    return any(done.get(cell.key, 0) < cell.blocks for cell in results.header.planned)


def _values(planned: Sequence[PlannedCell], name: str) -> str:
    return ",".join(str(value) for value in dict.fromkeys(getattr(c.key, name) for c in planned))


def _cores(cores: Sequence[int] | None) -> str:
    return "all" if cores is None else ranges(cores)


def _governor(is_pinned: bool) -> str:
    return "that is held" if is_pinned else "as it is"
