"""Results files: written a line at a time while measuring, read back as `Results`.

The lines are listed in docs/pipeline.md. A line is on disk before the next measurement
starts, and no line is ever changed, so a crash costs at most the block in flight.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, TypeVar

from bibench_deploy.errors import ResultsError
from bibench_deploy.profiling.conditions import (
    Conditions,
    clock_fall,
    conditions_from,
    held_back,
)
from bibench_deploy.profiling.operators import OperatorTime, operators_from
from bibench_deploy.profiling.plausible import BEYOND_MEASURE, is_time
from bibench_deploy.profiling.statistics import (
    Aggregate,
    Latency,
    Verdict,
    find_drift,
    judge,
    summarize,
    summarize_aggregates,
)

SCHEMA_VERSION = 1
EMULATED = Verdict("emulated", "another processor imitated this one: no figure of any hardware")
_FIRST_BYTES = b'{"kind":"header"'
_BLOCK = b'{"kind":"block"'
_LARGEST_FILE = 1 << 63

_T = TypeVar("_T")


@dataclass(frozen=True)
class CellKey:
    """What tells one cell from another.

    Attributes:
        artifact: short id of the artifact.
        device: name of the device.
        threads: that the runtime was asked to use.
    """

    artifact: str
    device: str
    threads: int


@dataclass(frozen=True)
class PlannedCell:
    """A cell that a whole run holds, with this many blocks."""

    key: CellKey
    blocks: int


@dataclass(frozen=True)
class Header:
    """What holds for a whole run.

    Attributes:
        run: its name.
        bibench_version: that measured.
        command: as typed.
        preset: name of the preset.
        seed: of the order of the blocks.
        started_at: UTC, ISO 8601.
        environment: fields of `environment.Environment`.
        planned: the cells of a whole run.
        cpus: numbers of the cores that all of it was kept on; None for all of the device's.
        is_pinned: whether the governor was held at `performance`.
    """

    run: str
    bibench_version: str
    command: tuple[str, ...]
    preset: str
    seed: int
    started_at: str
    environment: Mapping[str, Any]
    planned: tuple[PlannedCell, ...]
    cpus: tuple[int, ...] | None = None
    is_pinned: bool = False


@dataclass(frozen=True)
class MeasuredArtifact:
    """An artifact that was measured, as its manifest described it then.

    Attributes:
        id: its short id in this file.
        path: the folder, as it was given.
        manifest: as docs/pipeline.md lists it.
        twin: short id of its FP32 twin, or None.
    """

    id: str
    path: str
    manifest: Mapping[str, Any]
    twin: str | None

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(self.manifest["name"])

    @property
    def role(self) -> str:
        """`model` or `fp32_twin`."""
        return str(self.manifest["role"])

    @property
    def size_bytes(self) -> int:
        """Size of the deployed model file."""
        return int(self.manifest["size_bytes"])


@dataclass(frozen=True, slots=True)
class Block:
    """What one fresh process measured of a cell.

    Attributes:
        key: its cell.
        block: counts from 0 in its cell.
        runtime: name, version, sha256, binary_kernel, float_kernel, and what else counts.
        samples_ms: every timed inference, in order; empty only where there is an `aggregate`.
        warmup_count: inferences before them.
        warmup_settled: whether those had come to take the same time; None where nothing looked.
        other_load: share of the processors' time, 0 to 1, that other processes used meanwhile;
            None where unknown.
        init_ms: from the model's bytes to an interpreter that can run; None where unknown.
        peak_memory_mib: of a pass of its own, in the first block of a cell; None in the others, and
            where unknown. Older files have it of each block's process.
        note: what a reader of the figure must know, or None.
        aggregate: what a runner that keeps no samples gives in their place, else None.
        conditions: how the device was doing; None where it does not show.
    """

    key: CellKey
    block: int
    runtime: Mapping[str, Any]
    samples_ms: tuple[float, ...]
    warmup_count: int
    warmup_settled: bool | None
    other_load: float | None
    init_ms: float | None
    peak_memory_mib: float | None
    note: str | None
    aggregate: Aggregate | None = None
    conditions: Conditions | None = None

    @property
    def middle_ms(self) -> float:
        """Median of the samples; where there are none, what the runner gives in its place."""
        return median(self.samples_ms) if self.aggregate is None else self.aggregate.middle_ms


@dataclass(frozen=True)
class Cell:
    """The figures of one artifact on one device at one thread count.

    Attributes:
        key: which one.
        runtime: as in its blocks.
        block_count: how many processes measured it.
        sample_count: timed inferences, over all blocks.
        warmup_count: inferences before them, over all blocks.
        latency_ms: of one inference.
        other_load: median over blocks; None where unknown.
        init_ms: median over blocks; None where unknown.
        peak_memory_mib: largest of the blocks; None where unknown.
        verdict: `stable`, `noisy`, `throttled` or `emulated`.
        reason: of the verdict.
        note: what a reader of the figure must know, or None.
        drift_in_process: how much slower its processes became while they ran, as a fraction;
            None where unknown.
        drift_over_run: how much slower its last third of blocks was than its first, likewise.
        temperature_c: highest that was seen while it was measured; None where unknown.
        clock_mhz: median over blocks of the fastest core in use; None where unknown.
    """

    key: CellKey
    runtime: Mapping[str, Any]
    block_count: int
    sample_count: int
    warmup_count: int
    latency_ms: Latency
    other_load: float | None
    init_ms: float | None
    peak_memory_mib: float | None
    verdict: str
    reason: str
    note: str | None
    drift_in_process: float | None = None
    drift_over_run: float | None = None
    temperature_c: float | None = None
    clock_mhz: int | None = None


@dataclass(frozen=True)
class Results:
    """A results file.

    Attributes:
        path: the file.
        header: what holds for the whole run.
        artifacts: by short id, in the order of the file.
        cells: by key, in the order of the plan; those with at least one block.
        blocks: in the order in which they ran.
        operators: of the models that were profiled by operator, by cell.
        problems: one text for each thing that keeps the file from being whole, empty if it is.
    """

    path: Path
    header: Header
    artifacts: Mapping[str, MeasuredArtifact]
    cells: Mapping[CellKey, Cell]
    blocks: tuple[Block, ...]
    problems: tuple[str, ...]
    operators: Mapping[CellKey, tuple[OperatorTime, ...]] = field(default_factory=dict)

    def twin_cell(self, cell: Cell) -> Cell | None:
        """Give the FP32 twin's cell on the same device with the same threads, if measured."""
        twin = self.artifacts[cell.key.artifact].twin
        return self.cells.get(CellKey(twin, cell.key.device, cell.key.threads)) if twin else None

    def speed_up(self, cell: Cell) -> float | None:
        """Give p50 of the FP32 twin over p50 of this cell, or None without a twin's cell."""
        twin = self.twin_cell(cell)
        return twin.latency_ms.p50 / cell.latency_ms.p50 if twin else None


def summarize_cell(blocks: Sequence[Block], *, is_emulated: bool = False) -> Cell:
    """Reduce the blocks of one cell, in the order in which they ran, to its figures.

    Args:
        blocks: at least one.
        is_emulated: whether an emulated device measured them: the verdict then says so.

    Raises:
        ValueError: there are none.
    """
    if not blocks:
        raise ValueError("a cell needs at least one block")
    aggregates = [block.aggregate for block in blocks if block.aggregate is not None]
    if aggregates:
        latency_ms = summarize_aggregates(aggregates)
        sample_count = sum(aggregate.count for aggregate in aggregates)
    else:
        latency_ms = summarize([block.samples_ms for block in blocks])
        sample_count = sum(len(block.samples_ms) for block in blocks)
    settled = sum(block.warmup_settled is not False for block in blocks)
    loads = [block.other_load for block in blocks if block.other_load is not None]
    other_load = median(loads) if loads else None
    drifted = find_drift(
        [block.middle_ms for block in blocks], [block.samples_ms for block in blocks]
    )
    conditions = [block.conditions for block in blocks if block.conditions is not None]
    verdict = judge(latency_ms, len(blocks), settled, other_load, drifted, held_back(conditions))
    if verdict.name == "throttled" and (fall := clock_fall(conditions)) is not None:
        verdict = Verdict(verdict.name, f"{verdict.reason}; {fall}")
    if is_emulated:
        verdict = EMULATED
    temperatures = [one.temperature_c for one in conditions if one.temperature_c is not None]
    clocks = [one.clock_mhz for one in conditions if one.clock_mhz is not None]
    starts = [block.init_ms for block in blocks if block.init_ms is not None]
    memory = [block.peak_memory_mib for block in blocks if block.peak_memory_mib is not None]
    return Cell(
        key=blocks[0].key,
        runtime=blocks[0].runtime,
        block_count=len(blocks),
        sample_count=sample_count,
        warmup_count=sum(block.warmup_count for block in blocks),
        latency_ms=latency_ms,
        other_load=other_load,
        init_ms=median(starts) if starts else None,
        peak_memory_mib=max(memory, default=None),
        verdict=verdict.name,
        reason=verdict.reason,
        note=blocks[0].note,
        drift_in_process=drifted.in_process,
        drift_over_run=drifted.over_run,
        temperature_c=max(temperatures, default=None),
        clock_mhz=round(median(clocks)) if clocks else None,
    )


class Journal:
    """A results file while it is written. Leaving its `with` block closes it.

    A journal that got no block leaves no file. While it is open no other process may write it.

    Attributes:
        path: the file.
        begun: what it held when it was opened; None for nothing.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Create the file, and the folders above it; or go on with one.

        Args:
            path: the file.
            resume: whether the file may exist. What it holds is then in `begun`, and a last
                line that was cut off is cut away.

        Raises:
            ResultsError: the file exists, and nobody's measurements are written over; or it is
                to be resumed and is no results file, or another process writes it.
            OSError: it cannot be created.
        """
        self.path = path
        self.begun: Results | None = None
        self._own_begin = 0  # where the first line after it is
        path.parent.mkdir(parents=True, exist_ok=True)
        is_there = resume and path.exists()
        try:
            self._file = path.open("r+b" if is_there else "xb", buffering=0)
        except FileExistsError as error:
            raise ResultsError(
                f"{path} exists; go on with it by --resume, or choose another --out"
            ) from error
        try:
            self._lock()
            if is_there:
                self._go_on()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if not self.block_count():
            self.path.unlink(missing_ok=True)

    def block_count(self) -> int:
        """Count the blocks that are in the file, those from before included."""
        # Not from memory: an interruption may come between a line and whatever counts it.
        if not self.path.exists():
            return 0
        with self.path.open("rb") as lines:
            lines.seek(self._own_begin)
            own = sum(line.startswith(_BLOCK) for line in lines)
        return own if self.begun is None else own + len(self.begun.blocks)

    def write_header(self, header: Header) -> None:
        """Append the header; it comes first."""
        self._append(
            {
                "kind": "header",
                "schema_version": SCHEMA_VERSION,
                "run": header.run,
                "bibench_version": header.bibench_version,
                "command": list(header.command),
                "preset": header.preset,
                "seed": header.seed,
                "started_at": header.started_at,
                "environment": dict(header.environment),
                "planned": [{**asdict(cell.key), "blocks": cell.blocks} for cell in header.planned],
                "cpus": header.cpus,
                "is_pinned": header.is_pinned,
            }
        )

    def write_artifact(self, artifact: MeasuredArtifact) -> None:
        """Append an artifact; it comes before its blocks."""
        self._append(
            {
                "kind": "artifact",
                "artifact": artifact.id,
                "path": artifact.path,
                "manifest": dict(artifact.manifest),
                "twin": artifact.twin,
            }
        )

    def write_block(self, block: Block) -> None:
        """Append what one process measured."""
        fields = asdict(block)
        self._append({"kind": "block", **fields.pop("key"), **fields})

    def write_cell(self, cell: Cell) -> None:
        """Append the figures of a cell; it comes after its last block."""
        fields = asdict(cell)
        self._append({"kind": "cell", **fields.pop("key"), **fields})

    def write_operators(self, key: CellKey, operators: Sequence[OperatorTime]) -> None:
        """Append the operators of a cell's model; it comes after the artifact."""
        rows = [asdict(operator) for operator in operators]
        self._append({"kind": "operators", **asdict(key), "operators": rows})

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsError(f"{self.path}: another bibench is writing it; let it end") from error

    def _go_on(self) -> None:
        content = self._file.readall()
        end = content.rfind(b"\n") + 1
        if end:
            self.begun = read_results(self.path)
        elif not _FIRST_BYTES.startswith(content[: len(_FIRST_BYTES)]):
            raise ResultsError(f"{self.path}: no results file; choose another --out")
        self._file.truncate(end)
        self._file.seek(end)
        self._own_begin = end

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        content = memoryview(f"{text}\n".encode())
        begin = self._file.tell()
        end = begin + len(content)
        try:
            while content:
                content = content[self._file.write(content) or 0 :]
            os.fsync(self._file.fileno())
        except BaseException as error:
            # What follows half a line would be lost with it. A whole one, behind which an
            # interruption came, is kept.
            if self._file.tell() < end or isinstance(error, OSError):
                self._file.truncate(begin)
                self._file.seek(begin)
            if isinstance(error, OSError):
                error.filename = str(self.path)
            raise


class _Line:
    """One line of a results file, which complains with its file and number."""

    def __init__(self, path: Path, number: int, fields: Mapping[str, Any]) -> None:
        self.path = path
        self.number = number
        self.fields = fields

    def damage(self, what: str) -> ResultsError:
        return ResultsError(f"{self.path}, line {self.number}: {what}")

    def get(self, name: str, kind: type[_T]) -> _T:
        value: Any = self.fields.get(name)
        # JSON has one kind of number and Python two.
        if kind is float and type(value) in (int, float):
            if not abs(value) < BEYOND_MEASURE:
                raise self.damage(f'"{name}" is beyond all measure')
            value = float(value)
        if type(value) is not kind:
            raise self.damage(f'"{name}" is missing or of another type')
        return value

    def get_or_none(self, name: str, kind: type[_T]) -> _T | None:
        return self.get(name, kind) if self.fields.get(name) is not None else None

    def inside(self, fields: Any) -> _Line:
        if not isinstance(fields, dict):
            raise self.damage("an object is missing or of another type")
        return _Line(self.path, self.number, fields)

    def names(self) -> tuple[str, str, int]:
        return (self.get("artifact", str), self.get("device", str), self.get("threads", int))


def read_results(path: Path) -> Results:
    """Read a results file, an interrupted one too.

    A last line that was cut off is left out, and `problems` says so.

    Raises:
        ResultsError: the file is missing, is no results file, or is damaged; names the line.
    """
    header: Header | None = None
    artifacts: dict[str, MeasuredArtifact] = {}
    blocks: dict[CellKey, list[Block]] = {}
    order: list[Block] = []
    cells: dict[CellKey, Cell] = {}
    operators: dict[CellKey, tuple[OperatorTime, ...]] = {}
    problems: list[str] = []
    keys: dict[tuple[str, str, int], CellKey] = {}
    for line in _read_lines(path, problems):
        kind = line.get("kind", str)
        if (kind == "header") != (header is None):
            raise line.damage("a results file has one header, and that on its first line")
        if kind == "header":
            header = _header(line)
        elif kind == "artifact":
            artifact = _artifact(line)
            artifacts[artifact.id] = artifact
        elif kind in ("block", "cell", "operators"):
            named = line.names()
            if named not in keys:
                keys[named] = CellKey(*named)
            key = keys[named]
            if key.artifact not in artifacts:
                raise line.damage(f'no artifact "{key.artifact}" on a line before')
            if kind == "block":
                others = blocks.setdefault(key, [])
                block = _block(line, key, others[0].runtime if others else {})
                if others and (block.aggregate is None) != (others[0].aggregate is None):
                    raise line.damage("a block with samples among blocks of one cell without")
                others.append(block)
                order.append(block)
            elif kind == "operators":
                operators[key] = _operators(line)
            elif key not in blocks:
                raise line.damage("figures of a cell that has no block on a line before")
            else:
                cells[key] = _cell(line, key)
        else:
            raise line.damage(f'unknown kind "{kind}"; a newer bibench may have written it')
    if header is None:
        raise ResultsError(f"{path}: empty, so there is nothing to read")
    is_emulated = header.environment.get("is_emulated") is True
    done = {
        key: cells[key] if key in cells else summarize_cell(blocks[key], is_emulated=is_emulated)
        for key in blocks
    }
    planned = dict.fromkeys(cell.key for cell in header.planned)
    unfinished = sum(len(blocks.get(cell.key, ())) < cell.blocks for cell in header.planned)
    if unfinished:
        problems.append(
            f"{path}: interrupted: {unfinished} of {len(planned)} cells have not all their blocks"
        )
    ordered = [key for key in (planned | dict.fromkeys(done)) if key in done]
    return Results(
        path=path,
        header=header,
        artifacts=artifacts,
        cells={key: done[key] for key in ordered},
        blocks=tuple(order),
        problems=tuple(problems),
        operators=operators,
    )


def _read_lines(path: Path, problems: list[str]) -> Iterator[_Line]:
    decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                # Whole lines end in a newline, so what follows the last one is half a line.
                if not text.endswith(b"\n"):
                    problems.append(
                        f"{path}, line {number}: cut off in the middle; the lines before it "
                        "are used"
                    )
                    return
                try:
                    fields = decode(text.decode())
                except (ValueError, RecursionError) as error:
                    raise ResultsError(f"{path}, line {number}: no valid JSON: {error}") from error
                if not isinstance(fields, dict):
                    raise ResultsError(f"{path}, line {number}: not a JSON object")
                yield _Line(path, number, fields)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _header(line: _Line) -> Header:
    if line.fields.get("schema_version") != SCHEMA_VERSION:
        raise line.damage(
            f"schema_version {line.fields.get('schema_version')!r}, "
            f"this bibench reads {SCHEMA_VERSION}"
        )
    planned = [line.inside(entry) for entry in line.get("planned", list)]
    return Header(
        run=line.get("run", str),
        bibench_version=line.get("bibench_version", str),
        command=tuple(str(argument) for argument in line.get("command", list)),
        preset=line.get("preset", str),
        seed=line.get("seed", int),
        started_at=line.get("started_at", str),
        environment=line.get("environment", dict),
        planned=tuple(
            PlannedCell(CellKey(*entry.names()), entry.get("blocks", int)) for entry in planned
        ),
        cpus=_cpus(line),
        is_pinned=line.get_or_none("is_pinned", bool) or False,
    )


def _cpus(line: _Line) -> tuple[int, ...] | None:
    cpus = line.get_or_none("cpus", list)
    if cpus is not None and not all(type(core) is int and core >= 0 for core in cpus):
        raise line.damage('"cpus" is no list of core numbers')
    return None if cpus is None else tuple(cpus)


def _artifact(line: _Line) -> MeasuredArtifact:
    manifest = line.inside(line.get("manifest", dict))
    for name, kind in (("name", str), ("role", str), ("size_bytes", int), ("model_sha256", str)):
        manifest.get(name, kind)
    manifest.get_or_none("target", str)
    if not 1 <= manifest.fields["size_bytes"] < _LARGEST_FILE:
        raise line.damage('"size_bytes" is no size of a file')
    return MeasuredArtifact(
        id=line.get("artifact", str),
        path=line.get("path", str),
        manifest=manifest.fields,
        twin=line.get_or_none("twin", str),
    )


def _block(line: _Line, key: CellKey, usual_runtime: Mapping[str, Any]) -> Block:
    samples_ms = line.get("samples_ms", list)
    # As is_time, but a file may hold millions.
    are_times = not samples_ms or (
        set(map(type, samples_ms)) <= {int, float}
        and min(samples_ms) > 0
        and max(samples_ms) < BEYOND_MEASURE
    )
    aggregate = _aggregate(line)
    if bool(samples_ms) == bool(aggregate) or not are_times:
        raise line.damage(
            '"samples_ms" must be a list of times above 0, empty only beside an "aggregate"'
        )
    runtime = line.get("runtime", dict)
    return Block(
        key=key,
        block=line.get("block", int),
        # The blocks of a cell have one runtime, and a long file need not hold it often.
        runtime=usual_runtime if runtime == usual_runtime else runtime,
        samples_ms=tuple(samples_ms),
        warmup_count=line.get("warmup_count", int),
        warmup_settled=line.get_or_none("warmup_settled", bool),
        other_load=line.get_or_none("other_load", float),
        init_ms=line.get_or_none("init_ms", float),
        peak_memory_mib=line.get_or_none("peak_memory_mib", float),
        note=line.get_or_none("note", str),
        aggregate=aggregate,
        conditions=_conditions(line),
    )


def _operators(line: _Line) -> tuple[OperatorTime, ...]:
    try:
        return operators_from(line.get("operators", list))
    except (ValueError, KeyError, TypeError) as error:
        raise line.damage(f'"operators" is no list of operators: {error}') from error


def _conditions(line: _Line) -> Conditions | None:
    given = line.fields.get("conditions")
    return None if given is None else conditions_from(line.inside(given).fields)


def _aggregate(line: _Line) -> Aggregate | None:
    if line.fields.get("aggregate") is None:
        return None
    given = line.inside(line.fields["aggregate"])
    found = Aggregate(
        count=given.get("count", int),
        mean_ms=given.get("mean_ms", float),
        median_ms=given.get_or_none("median_ms", float),
        min_ms=given.get_or_none("min_ms", float),
        max_ms=given.get_or_none("max_ms", float),
        std_ms=given.get_or_none("std_ms", float),
    )
    if not all(map(is_time, (found.count, found.mean_ms, found.middle_ms))):
        raise line.damage('"aggregate" must count at least one time above 0')
    return found


def _cell(line: _Line, key: CellKey) -> Cell:
    latency = line.inside(line.fields.get("latency_ms"))
    if latency.get("p50", float) <= 0:
        raise line.damage('"p50" is no time above 0')
    verdict = line.get("verdict", str)
    return Cell(
        key=key,
        runtime=line.get("runtime", dict),
        block_count=line.get("block_count", int),
        sample_count=line.get("sample_count", int),
        warmup_count=line.get("warmup_count", int),
        latency_ms=Latency(
            p50=latency.get("p50", float),
            p90=latency.get_or_none("p90", float),
            low_ms=latency.get_or_none("low_ms", float),
            high_ms=latency.get_or_none("high_ms", float),
            mad_ms=latency.get_or_none("mad_ms", float),
            iqr_ms=latency.get_or_none("iqr_ms", float),
        ),
        other_load=line.get_or_none("other_load", float),
        init_ms=line.get_or_none("init_ms", float),
        peak_memory_mib=line.get_or_none("peak_memory_mib", float),
        verdict=verdict,
        reason=line.get("reason", str),
        note=line.get_or_none("note", str),
        drift_in_process=line.get_or_none("drift_in_process", float),
        drift_over_run=line.get_or_none("drift_over_run", float),
        temperature_c=line.get_or_none("temperature_c", float),
        clock_mhz=line.get_or_none("clock_mhz", int),
    )
