"""Measure artifacts on a device: the sweep, from folders to a results file."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bibench_deploy.artifact import MANIFEST_NAME, TWIN_DIRECTORY, Artifact
from bibench_deploy.devices.registry import Device, find_device
from bibench_deploy.devices.transports import open_transport
from bibench_deploy.errors import ArtifactError, DeviceError
from bibench_deploy.profiling.affinity import choose_cores, taskset
from bibench_deploy.profiling.conditions import Watch, other_load, watched
from bibench_deploy.profiling.environment import Environment, read_environment
from bibench_deploy.profiling.journal import (
    Block,
    CellKey,
    Header,
    Journal,
    MeasuredArtifact,
    PlannedCell,
    Results,
    read_results,
    summarize_cell,
)
from bibench_deploy.profiling.pinning import pinned
from bibench_deploy.profiling.presets import Preset, find_preset
from bibench_deploy.profiling.resumption import (
    check_same_machine,
    check_same_sweep,
    newest_unfinished,
)
from bibench_deploy.profiling.runners import pick_runner, runners_for
from bibench_deploy.profiling.same_runtime import SameRuntime

if TYPE_CHECKING:
    from bibench_deploy.devices.transports._transport import CommandResult, Transport
    from bibench_deploy.profiling.runners._runner import Runner

RESULTS_DIRECTORY = Path("results")
INPUT_SEED = 0


@dataclass(frozen=True)
class Plan:
    """What a sweep will measure, before anything is measured.

    Attributes:
        artifacts: by short id, each model before its FP32 twin.
        twins: short id of the FP32 twin, by short id of the model.
        device: that all of it runs on.
        preset: how long and how often.
        cells: artifacts × threads.
    """

    artifacts: dict[str, Artifact]
    twins: dict[str, str]
    device: Device
    preset: Preset
    cells: tuple[PlannedCell, ...]

    @property
    def block_count(self) -> int:
        """Blocks of the whole sweep."""
        return sum(cell.blocks for cell in self.cells)

    @property
    def run_name(self) -> str:
        """What is measured, for a file's name; without a time."""
        twins = set(self.twins.values())
        names = [entry.name for id_, entry in self.artifacts.items() if id_ not in twins]
        more = f"-and-{len(names) - 1}-more" if len(names) > 1 else ""
        at = "" if self.device.name == "local" else f"-{self.device.name}"
        return f"{names[0]}{more}{at}".replace("/", "-")


@dataclass(frozen=True)
class Finished:
    """A block that has ended.

    Attributes:
        key: its cell.
        middle_ms: its median, or what its runner gives in the place of one.
        verdict: of the cell, where it was the cell's last block.
    """

    key: CellKey
    middle_ms: float
    verdict: str | None


@dataclass(frozen=True)
class Progress:
    """How far a sweep has come, said before each block and once at the end.

    A sweep that ends early says a last block too that is in its file.

    Attributes:
        done: finished blocks.
        total: blocks of the sweep.
        key: the cell whose block starts now; None at the end.
        name: of its artifact; empty at the end.
        finished: the block before; None at the start.
    """

    done: int
    total: int
    key: CellKey | None
    name: str
    finished: Finished | None = None


@dataclass(frozen=True)
class ProfileRun:
    """A finished sweep.

    Attributes:
        path: the results file.
        results: what it holds.
        remarks: what was asked for and could not be done, a sentence each.
    """

    path: Path
    results: Results
    remarks: tuple[str, ...] = ()


def latest_artifact(exports: Path = Path("out")) -> Path:
    """Find the folder that was exported last; FP32 twins do not count.

    Raises:
        ArtifactError: there is none.
    """
    # A folder that begins with a dot is an export that is still being written.
    manifests = [path for path in exports.glob(f"*/{MANIFEST_NAME}") if path.parent.name[0] != "."]
    manifests.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for manifest in manifests:
        if Artifact.load(manifest.parent).role == "model":
            return manifest.parent
    raise ArtifactError(
        f"no exported model under ./{exports}; run: bibench export --target lce, or name a folder"
    )


def plan_profile(
    directories: Sequence[Path],
    device: str = "local",
    threads: Sequence[int] = (1, 2),
    preset: str = "quick",
) -> Plan:
    """Say what a sweep of these artifacts would measure, their FP32 twins included.

    The same model file in two folders is measured once.

    Args:
        directories: folders that `bibench export` wrote; at least one.
        device: name in the device registry.
        threads: thread counts, each at least 1.
        preset: name of a preset.

    Raises:
        ValueError: no folder, no thread count, or one below 1.
        ArtifactError: a folder is no artifact, or a file of it is not the exported one.
        UnknownNameError: no such device or preset, or nothing runs artifacts of this target.
        DeviceError: a devices.toml is damaged, or a target's engine has no threads.
    """
    if not directories:
        raise ValueError("at least one artifact is needed")
    if not threads or min(threads) < 1:
        raise ValueError(f"thread counts must be at least 1, got {list(threads)}")
    artifacts: dict[str, Artifact] = {}
    twins: dict[str, str] = {}
    for directory in directories:
        artifact = Artifact.load(directory)
        id_ = _add_artifact(artifacts, artifact)
        twin_directory = directory / TWIN_DIRECTORY
        if (twin_directory / MANIFEST_NAME).is_file():
            twin_id = _add_artifact(artifacts, Artifact.load(twin_directory))
            # A float model may be its own twin.
            if twin_id != id_:
                twins[id_] = twin_id
    for artifact in artifacts.values():
        reasons = [runner.one_thread for runner in runners_for(artifact.target)]
        if max(threads) > 1 and all(reasons):
            counts = ",".join(str(count) for count in threads)
            raise DeviceError(
                f"{artifact.name} for {artifact.target} cannot run with --threads {counts}: "
                f"{reasons[0]}; give --threads 1"
            )
    found_device = find_device(device)
    found_preset = find_preset(preset)
    cells = tuple(
        PlannedCell(CellKey(id_, device, count), found_preset.blocks)
        for id_ in artifacts
        for count in sorted(set(threads))
    )
    return Plan(artifacts, twins, found_device, found_preset, cells)


def profile_artifacts(
    artifact_dirs: Sequence[Path],
    device: str = "local",
    threads: Sequence[int] = (1, 2),
    preset: str = "quick",
    out: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    resume: bool = False,
    seed: int | None = None,
    command: Sequence[str] = (),
    cpus: str | None = None,
    pin: bool = False,
    operators: bool = False,
) -> ProfileRun:
    """Measure every artifact, and its FP32 twin, with every thread count.

    Each cell is measured in several blocks, every block in a fresh process. One block of every
    cell makes a round, each round in a random order of its own, so that a machine that slows
    down for a while slows down every cell alike. A block is on disk before the next one starts.

    Args:
        artifact_dirs: folders that `bibench export` wrote; at least one.
        device: name in the device registry.
        threads: thread counts, each at least 1.
        preset: name of a preset.
        out: the results file; results/<name>-<UTC time>.jsonl unless said.
        progress: called before each block and once at the end.
        resume: go on with `out`, or else with the newest unfinished sweep of the same cells in
            results; an `out` that does not exist is begun. Blocks that it holds are kept.
        seed: of the order of the blocks; drawn, and recorded, unless said.
        command: what the user typed, for the record.
        cpus: the cores to keep it on: "big", "little", or numbers such as "0-3"; None for all.
        pin: hold the frequency governor at `performance` meanwhile.
        operators: profile each model by operator too, after all blocks.

    Returns:
        The results file and its content.

    Raises:
        ValueError: as `plan_profile`; also its ArtifactError and UnknownNameError.
        ResultsError: `out` exists; or it is to be resumed and is of another sweep.
        DeviceError: the device cannot be reached, or a run on it failed; blocks that were
            finished before are in the file.
        MissingExtraError: the runtime is not installed.
        OSError: the results file cannot be written.
    """
    plan = plan_profile(artifact_dirs, device, threads, preset)
    started_at = datetime.now(timezone.utc)
    run = f"{plan.run_name}-{started_at:%Y%m%dT%H%M%SZ}"
    path = out if out is not None else RESULTS_DIRECTORY / f"{run}.jsonl"
    if resume and out is None:
        path = newest_unfinished(RESULTS_DIRECTORY, plan.cells)
    order_seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    with (
        open_transport(plan.device) as transport,
        transport.hold(),
        Journal(path, resume=resume) as journal,
    ):
        begun = journal.begun
        environment = read_environment(transport)
        cores = None if cpus is None else choose_cores(cpus, environment, device, threads)
        if begun is not None:
            check_same_sweep(begun, plan.cells, plan.preset.name, cores, is_pinned=pin)
            check_same_machine(begun, environment.as_json())
            order_seed = begun.header.seed
        else:
            journal.write_header(
                Header(
                    run=run,
                    bibench_version=version("bibench"),
                    command=tuple(command),
                    preset=plan.preset.name,
                    seed=order_seed,
                    started_at=f"{started_at:%Y-%m-%dT%H:%M:%SZ}",
                    environment=environment.as_json(),
                    planned=plan.cells,
                    cpus=cores,
                    is_pinned=pin,
                )
            )
        for id_, artifact in plan.artifacts.items():
            if begun is None or id_ not in begun.artifacts:
                path_shown = _shown(artifact.directory)
                journal.write_artifact(
                    MeasuredArtifact(id_, path_shown, artifact.manifest, plan.twins.get(id_))
                )
        before = begun.blocks if begun is not None else ()
        with (
            pinned(transport, cores) if pin else contextlib.nullcontext(),
            watched(transport, cores, environment.cores) as watch,
        ):
            parts = _Parts.of(plan, transport, environment, cores)
            with _told_of_each_block(progress, journal, plan.block_count) as tell:
                _measure(parts, journal, order_seed, before, tell, watch)
        done = begun.operators if begun is not None else {}
        remarks = _profile_operators(parts, journal, done) if operators else ()
    return ProfileRun(path, read_results(path), remarks)


@dataclass(frozen=True)
class _Parts:
    """What every run of a sweep needs.

    Attributes:
        plan: the sweep.
        transport: to the device.
        environment: of the device.
        cores: that runs are kept on; None for all.
        runners: by short id of the artifact.
        files: likewise; here, by role.
        pushed: the same files on the device.
    """

    plan: Plan
    transport: Transport
    environment: Environment
    cores: Sequence[int] | None
    runners: dict[str, Runner]
    files: dict[str, dict[str, Path]]
    pushed: dict[Path, str]

    @classmethod
    def of(
        cls,
        plan: Plan,
        transport: Transport,
        environment: Environment,
        cores: Sequence[int] | None,
    ) -> _Parts:
        """Pick the runners, and push what they need."""
        runners = {
            id_: pick_runner(artifact.target, environment, plan.device.name)
            for id_, artifact in plan.artifacts.items()
        }
        files = {
            id_: runners[id_].files(artifact, environment)
            for id_, artifact in plan.artifacts.items()
        }
        # A script that several artifacts share is pushed once.
        wanted = dict.fromkeys(file for roles in files.values() for file in roles.values())
        pushed = transport.push_all(list(wanted))
        return cls(plan, transport, environment, cores, runners, files, pushed)

    def there(self, artifact: str) -> dict[str, str]:
        """The files of an artifact on the device, by role."""
        return {role: self.pushed[file] for role, file in self.files[artifact].items()}

    def run(self, arguments: Sequence[str]) -> CommandResult:
        """Run a runner's command, on the cores that were chosen."""
        return self.transport.run(
            [*taskset(self.cores), *arguments], timeout_s=self.plan.preset.timeout_s
        )

    def peak_memory_mib(self, key: CellKey) -> float | None:
        """Run a cell's model for its memory alone; None where its runtime does not tell.

        What watches memory may cost time, and samples that are kept take memory: this is no block.
        """
        runner, artifact = self.runners[key.artifact], self.plan.artifacts[key.artifact]
        arguments = runner.memory_command(
            self.transport.python, self.there(key.artifact), key.threads, INPUT_SEED
        )
        if arguments is None:
            return None
        with self.explaining(key.artifact):
            result = self.run(arguments)
            read = runner.read(result, artifact, self.files[key.artifact], key.threads)
        return read.peak_memory_mib

    @contextlib.contextmanager
    def explaining(self, artifact: str) -> Iterator[None]:
        """Say that an artifact's files are gone, where that is why a run of it failed."""
        try:
            yield
        except DeviceError:
            self.transport.check_pushed(list(self.there(artifact).values()))
            raise


def _profile_operators(
    parts: _Parts, journal: Journal, done: Mapping[CellKey, Any]
) -> tuple[str, ...]:
    """Profile each model once, at the least thread count; gives what cannot be profiled."""
    remarks = []
    cells = {cell.key.artifact: cell.key for cell in reversed(parts.plan.cells)}
    for id_, artifact in parts.plan.artifacts.items():
        runner, key = parts.runners[id_], cells[id_]
        if key in done:
            continue
        if runner.no_operators:
            remarks.append(f"{artifact.name} has no profile of operators: {runner.no_operators}")
            continue
        arguments = runner.operators_command(
            parts.transport.python, parts.there(id_), key.threads, INPUT_SEED
        )
        with parts.explaining(id_):
            operators = runner.read_operators(parts.run(arguments), artifact)
        journal.write_operators(key, operators)
    return tuple(dict.fromkeys(remarks))


def _measure(
    parts: _Parts,
    journal: Journal,
    seed: int,
    before: Sequence[Block],
    tell: Callable[[Progress], None],
    watch: Watch,
) -> None:
    plan, environment = parts.plan, parts.environment
    generator = random.Random(seed)  # noqa: S311 - an order, not a secret
    total = plan.block_count
    done: dict[CellKey, list[Block]] = {cell.key: [] for cell in plan.cells}
    same = SameRuntime()
    for measured_before in before:
        key = measured_before.key
        done[key].append(measured_before)
        same.check(key.artifact, plan.artifacts[key.artifact].name, measured_before.runtime)
    count, finished = len(before), None
    for block in range(plan.preset.blocks):
        for cell in generator.sample(plan.cells, len(plan.cells)):
            key = cell.key
            # Rounds are in order, and a cell has one block of each: these were measured before.
            if len(done[key]) > block:
                continue
            artifact = plan.artifacts[key.artifact]
            tell(Progress(count, total, key, artifact.name, finished))
            runner, local = parts.runners[key.artifact], parts.files[key.artifact]
            arguments = runner.command(
                parts.transport.python,
                parts.there(key.artifact),
                key.threads,
                plan.preset,
                INPUT_SEED,
            )
            # The first block of a cell has it, so that a crash costs no more than both.
            peak_memory_mib = None if done[key] else parts.peak_memory_mib(key)
            begun_at_s = time.monotonic()
            with parts.explaining(key.artifact):
                measured = runner.read(parts.run(arguments), artifact, local, key.threads)
            conditions = watch.since(begun_at_s)
            load = measured.other_load
            if load is None:
                load = other_load(conditions, key.threads, environment.cores)
            same.check(key.artifact, artifact.name, measured.runtime)
            done[key].append(
                Block(
                    key=key,
                    block=block,
                    runtime=measured.runtime,
                    samples_ms=measured.samples_ms,
                    warmup_count=measured.warmup_count,
                    warmup_settled=measured.warmup_settled,
                    other_load=load,
                    init_ms=measured.init_ms,
                    peak_memory_mib=peak_memory_mib,
                    note=measured.note,
                    aggregate=measured.aggregate,
                    conditions=conditions,
                )
            )
            journal.write_block(done[key][-1])
            count += 1
            verdict = None
            if len(done[key]) == cell.blocks:
                summary = summarize_cell(done[key], is_emulated=environment.is_emulated)
                journal.write_cell(summary)
                verdict = summary.verdict
            finished = Finished(key, done[key][-1].middle_ms, verdict)
    tell(Progress(count, total, None, "", finished))


@contextlib.contextmanager
def _told_of_each_block(
    progress: Callable[[Progress], None] | None, journal: Journal, total: int
) -> Iterator[Callable[[Progress], None]]:
    """What a sweep is to call with its progress.

    An interruption may come when a block is in the file and nobody was told: it is said then.
    """
    told = 0

    def tell(said: Progress) -> None:
        nonlocal told
        if progress:
            progress(said)
        told = said.done

    try:
        yield tell
    except BaseException:
        count = journal.block_count()
        if progress and count > told:
            progress(Progress(count, total, None, ""))
        raise


def _add_artifact(artifacts: dict[str, Artifact], artifact: Artifact) -> str:
    artifact.check_files()
    runners_for(artifact.target)
    id_ = artifact.model_sha256[:12]
    artifacts.setdefault(id_, artifact)
    return id_


def _shown(directory: Path) -> str:
    # An absolute path would carry the user's name into a file that is made to be shared.
    return directory.name if directory.is_absolute() else directory.as_posix()
