"""Measure cells of a sweep once more, where its device and its models are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.registry import find_device
from bibench_deploy.devices.transports import open_transport
from bibench_deploy.errors import DeployError, ResultsError
from bibench_deploy.profiling.affinity import ranges
from bibench_deploy.profiling.comparison import Comparison, Outcome
from bibench_deploy.profiling.environment import read_environment
from bibench_deploy.profiling.journal import CellKey, Results
from bibench_deploy.profiling.resumption import MACHINE
from bibench_deploy.profiling.session import Progress, profile_artifacts

# Another measurement may come to another one of these; nothing else that is inconclusive would.
_REPEATED = ("noisy", "throttled")


def repeatable_cells(comparison: Comparison) -> tuple[CellKey, ...]:
    """Name the cells of NEW that alone keep a comparison from a conclusion."""
    return tuple(
        change.new.key
        for change in comparison.latencies
        if change.outcome is Outcome.INCONCLUSIVE
        and change.old is not None
        and change.new is not None
        and change.old.verdict == "stable"
        and change.new.verdict in _REPEATED
        and not change.is_other_processor
    )


def measure_again(
    results: Results, keys: Sequence[CellKey], progress: Callable[[Progress], None] | None = None
) -> Results:
    """Measure cells of a results file anew, into the file `<name>-again.jsonl` beside it.

    Args:
        results: the sweep.
        keys: its cells to measure again, at least one, all on one device.
        progress: as for `profile_artifacts`.

    Returns:
        The sweep with the new figures in the place of the old ones.

    Raises:
        ResultsError: the models or the device are not those that were measured, or the file
            exists.
        DeviceError: the device cannot be reached, or a run on it failed.
    """
    path = again_path(results.path)
    if path.exists():
        raise ResultsError(f"{path} is there already; compare with it, or remove it")
    models = list(dict.fromkeys(key.artifact for key in keys))
    folders = [_folder(results, model) for model in models]
    device = keys[0].device
    _check_machine(results, device)
    threads = sorted({key.threads for key in keys})
    header = results.header
    run = profile_artifacts(
        folders, device, threads, header.preset, path, progress,
        cpus=None if header.cpus is None else ranges(header.cpus), pin=header.is_pinned,
    )  # fmt: skip
    fresh = {key: run.results.cells[key] for key in keys}
    blocks = [block for block in results.blocks if block.key not in fresh]
    blocks += [block for block in run.results.blocks if block.key in fresh]
    return replace(
        results,
        cells={**results.cells, **fresh},
        blocks=tuple(blocks),
        problems=(*results.problems, *run.results.problems),
    )


def again_path(path: Path) -> Path:
    """The file that a second measurement of a results file goes to."""
    return path.with_name(f"{path.stem}-again{path.suffix}")


def _folder(results: Results, model: str) -> Path:
    artifact = results.artifacts[model]
    folder = Path(artifact.path)
    try:
        is_same = Artifact.load(folder).model_sha256 == artifact.manifest["model_sha256"]
    except DeployError:
        is_same = False
    if not is_same:
        raise ResultsError(f"the folder {folder} does not hold the model that was measured")
    return folder


def _check_machine(results: Results, device: str) -> None:
    with open_transport(find_device(device)) as transport:
        environment = read_environment(transport).as_json()
    for name in MACHINE:
        before, now = results.header.environment.get(name), environment.get(name)
        if before != now:
            raise ResultsError(
                f"device {device} is not the machine that was measured: {name} {before}, now {now}"
            )
