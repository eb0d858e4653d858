"""Two sweeps of the same models: what became slower, faster, larger or smaller.

A change of latency counts when two things hold: its 95 % interval excludes zero, and it is
larger than a threshold and than the cell's own noise, the span of its 95 % interval. It is only
looked for between two stable cells of the same processor; anything else is inconclusive,
neither a pass nor a regression. docs/method.md gives the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from bibench_deploy.errors import ResultsError
from bibench_deploy.profiling.affinity import ranges
from bibench_deploy.profiling.journal import Cell, CellKey, MeasuredArtifact, Results
from bibench_deploy.profiling.statistics import change_interval

THRESHOLD = 0.03


class Outcome(str, Enum):
    """What a comparison came to."""

    SAME = "no change"
    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Identity:
    """What makes two artifacts of two files the same model, though its weights may differ."""

    name: str
    role: str
    target: str


@dataclass(frozen=True)
class LatencyChange:
    """One cell in two files.

    Attributes:
        model: whose latency it is.
        device: name of the device.
        threads: that the runtime was asked to use.
        old: its cell; None where OLD has none.
        new: likewise.
        change: of p50, as a fraction of the old one; None where a side is missing.
        interval: 95 % interval of the change; None where it is unknown.
        limit: what a change has to exceed to count; None where none was looked for.
        outcome: what it came to.
        reason: of the outcome.
        is_other_processor: whether the two were measured on different processors.
    """

    model: Identity
    device: str
    threads: int
    old: Cell | None
    new: Cell | None
    change: float | None
    interval: tuple[float, float] | None
    limit: float | None
    outcome: Outcome
    reason: str
    is_other_processor: bool = False

    @property
    def verdict(self) -> str:
        """`slower`, `faster`, `no change` or `inconclusive`."""
        named = {Outcome.WORSE: "slower", Outcome.BETTER: "faster"}
        return named.get(self.outcome, self.outcome.value)


@dataclass(frozen=True)
class SizeChange:
    """The deployed file of one model in two files; a size has no noise."""

    model: Identity
    old_bytes: int
    new_bytes: int
    outcome: Outcome

    @property
    def change(self) -> float:
        """As a fraction of the old size."""
        return self.new_bytes / self.old_bytes - 1

    @property
    def verdict(self) -> str:
        """`larger`, `smaller` or `no change`."""
        named = {Outcome.WORSE: "larger", Outcome.BETTER: "smaller"}
        return named.get(self.outcome, self.outcome.value)


@dataclass(frozen=True)
class Comparison:
    """Everything that two results files have to say about each other.

    Attributes:
        threshold: least change that may count, as a fraction.
        latencies: in the order of OLD, then what only NEW has.
        sizes: of the models that both have.
        notes: what differs between the sweeps and may be the cause of a change.
        problems: what keeps the files from being whole.
    """

    threshold: float
    latencies: tuple[LatencyChange, ...]
    sizes: tuple[SizeChange, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def changes(self) -> tuple[LatencyChange | SizeChange, ...]:
        """Latencies, then sizes."""
        return (*self.latencies, *self.sizes)

    @property
    def outcome(self) -> Outcome:
        """Worse if anything is; else inconclusive if anything is; else better or the same."""
        found = {change.outcome for change in self.changes}
        for outcome in (Outcome.WORSE, Outcome.INCONCLUSIVE, Outcome.BETTER):
            if outcome in found:
                return outcome
        return Outcome.SAME


def compare_results(old: Results, new: Results, threshold: float = THRESHOLD) -> Comparison:
    """Compare two sweeps, cell by cell and file by file.

    Args:
        old: what was.
        new: what is.
        threshold: least change that may count, as a fraction.

    Raises:
        ResultsError: they have no cell in common, or a file has two models of one name.
    """
    before, after = _cells(old), _cells(new)
    if not before.keys() & after.keys():
        raise ResultsError(
            f"{old.path} and {new.path} have no cell in common: {_named(old)} against "
            f"{_named(new)}; compare sweeps of the same models, devices and thread counts"
        )
    other_processor = _other_processor(old, new)
    old_middles, new_middles = _middles(old), _middles(new)
    latencies = []
    for model, device, threads in before | after:
        was, now = before.get((model, device, threads)), after.get((model, device, threads))
        if was is None or now is None:
            latencies.append(_one_sided(model, device, threads, was, now))
        else:
            interval = change_interval(old_middles[was.key], new_middles[now.key])
            latencies.append(_latency(model, was, now, interval, threshold, other_processor))
    sizes_before, sizes_after = _sizes(old), _sizes(new)
    return Comparison(
        threshold=threshold,
        latencies=tuple(latencies),
        sizes=tuple(
            SizeChange(model, size, sizes_after[model], _size(size, sizes_after[model], threshold))
            for model, size in sizes_before.items()
            if model in sizes_after
        ),
        notes=tuple(_notes(old, new)),
        problems=(*old.problems, *new.problems),
    )


def _identity(artifact: MeasuredArtifact) -> Identity:
    return Identity(artifact.name, artifact.role, str(artifact.manifest.get("target", "")))


def _identities(results: Results) -> dict[str, Identity]:
    found = {id_: _identity(artifact) for id_, artifact in results.artifacts.items()}
    for model in found.values():
        if list(found.values()).count(model) > 1:
            raise ResultsError(
                f"{results.path}: two artifacts are called {model.name} ({model.role}, "
                f"{model.target}), so it cannot be told which to compare; profile them apart"
            )
    return found


def _cells(results: Results) -> dict[tuple[Identity, str, int], Cell]:
    models = _identities(results)
    return {
        (models[key.artifact], key.device, key.threads): cell for key, cell in results.cells.items()
    }


def _sizes(results: Results) -> dict[Identity, int]:
    return {_identity(artifact): artifact.size_bytes for artifact in results.artifacts.values()}


def _middles(results: Results) -> dict[CellKey, list[float]]:
    found: dict[CellKey, list[float]] = {}
    for block in results.blocks:
        found.setdefault(block.key, []).append(block.middle_ms)
    return found


def _latency(
    model: Identity,
    old: Cell,
    new: Cell,
    interval: tuple[float, float] | None,
    threshold: float,
    other_processor: str | None,
) -> LatencyChange:
    change = new.latency_ms.p50 / old.latency_ms.p50 - 1
    limit = max(threshold, *(_span(cell) for cell in (old, new)))
    obstacles = [other_processor] if other_processor else []
    obstacles += [
        f"{which} is {cell.verdict}: {cell.reason}"
        for which, cell in (("OLD", old), ("NEW", new))
        if cell.verdict != "stable"
    ]
    if obstacles or interval is None:
        outcome, reason = Outcome.INCONCLUSIVE, "; ".join(obstacles) or "a side has one block"
    elif interval[0] <= 0 <= interval[1]:
        outcome, reason = Outcome.SAME, "its 95 % interval holds 0"
    elif abs(change) <= limit:
        outcome, reason = Outcome.SAME, f"within the limit of {100 * limit:.1f} %"
    else:
        outcome = Outcome.WORSE if change > 0 else Outcome.BETTER
        reason = f"beyond the limit of {100 * limit:.1f} %"
    key = new.key
    return LatencyChange(
        model, key.device, key.threads, old, new, change, interval, limit, outcome, reason,
        other_processor is not None,
    )  # fmt: skip


def _span(cell: Cell) -> float:
    latency = cell.latency_ms
    if latency.low_ms is None or latency.high_ms is None:
        return 0.0
    return (latency.high_ms - latency.low_ms) / latency.p50


def _one_sided(
    model: Identity, device: str, threads: int, old: Cell | None, new: Cell | None
) -> LatencyChange:
    # What is new has nothing to be worse than; what is gone may hide what became of it.
    outcome = Outcome.SAME if old is None else Outcome.INCONCLUSIVE
    reason = "only NEW has it" if old is None else "NEW does not have it"
    return LatencyChange(model, device, threads, old, new, None, None, None, outcome, reason)


def _size(old: int, new: int, threshold: float) -> Outcome:
    change = new / old - 1
    if abs(change) <= threshold:
        return Outcome.SAME
    return Outcome.WORSE if change > 0 else Outcome.BETTER


def _other_processor(old: Results, new: Results) -> str | None:
    for name in ("machine", "cpu"):
        was, now = (results.header.environment.get(name) for results in (old, new))
        if was != now and was is not None and now is not None:
            return f"measured on another processor: {was}, then {now}"
    cores = [
        "all" if results.header.cpus is None else ranges(results.header.cpus)
        for results in (old, new)
    ]
    return None if cores[0] == cores[1] else f"measured on other cores: {cores[0]}, then {cores[1]}"


def _notes(old: Results, new: Results) -> Iterator[str]:
    for name in ("kernel", "python", "governor"):
        was, now = (results.header.environment.get(name) for results in (old, new))
        if was != now:
            yield f"{name}: {was}, then {now}"
    for name, was, now in (
        ("bibench", old.header.bibench_version, new.header.bibench_version),
        ("preset", old.header.preset, new.header.preset),
        ("--pin", old.header.is_pinned, new.header.is_pinned),
        ("runtimes", _runtimes(old), _runtimes(new)),
    ):
        if was != now:
            yield f"{name}: {was}, then {now}"


def _runtimes(results: Results) -> str:
    found = {
        f"{cell.runtime.get('name')} {cell.runtime.get('version')}"
        for cell in results.cells.values()
    }
    return " and ".join(sorted(found))


def _named(results: Results) -> str:
    found = sorted(
        {
            f"{results.artifacts[key.artifact].name} on {key.device} at {key.threads}"
            for key in results.cells
        }
    )
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return ", ".join(found[:2]) + more or "nothing"
