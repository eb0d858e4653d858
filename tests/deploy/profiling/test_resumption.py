from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.errors import DeviceError, ResultsError
from bibench_deploy.profiling import session
from bibench_deploy.profiling.journal import Journal, read_results
from bibench_deploy.profiling.presets import PRESETS, Preset
from bibench_deploy.profiling.resumption import newest_unfinished, read_begun_sweep
from bibench_deploy.profiling.session import ProfileRun, Progress, profile_artifacts

MakeArtifact = Callable[..., Artifact]
Resume = Callable[..., ProfileRun]

PROBED = """
@system
Linux
@machine
x86_64
@cores
4
@python
3.9.2
larq-compute-engine 0.16.0
numpy 1.26.4
"""
BLOCKS = 3
CELLS = 4
RUN = Path("run.jsonl")
anew = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


class Board(FakeTransport):
    """A board that answers as often as it is asked, no two blocks alike."""

    version = "0.16.0"
    probed = PROBED
    ends_after: int | None = None

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> CommandResult:
        self.commands.append(list(arguments))
        if len(self.commands) == 1:
            return CommandResult(0, self.probed, "")
        if self.ends_after is not None and len(self.commands) > 1 + self.ends_after:
            raise DeviceError("device board: link lost")
        printed = {
            "samples_ms": [1.0 + time.monotonic_ns() % 1_000_000 / 1e9] * 3,
            "warmup_count": 10,
            "warmup_settled": True,
            "other_load": 0.0,
            "init_ms": 2.0,
            "peak_memory_mib": 50.0,
            "larq_compute_engine": self.version,
            "extension_sha256": "00",
            "python": "3.11.7",
            "numpy": "1.26.4",
        }
        return CommandResult(0, json.dumps(printed), "")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_lce_artifact: MakeArtifact
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", BLOCKS, 0.0, 0.1, 3, 0.0, 0.2))
    Path("devices.toml").write_text('[board]\ntransport = "fake"\n')
    make_lce_artifact(Path("tiny"))


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Resume:
    """sweep(): two models at two thread counts, three blocks of each, on a board."""

    def run(
        *,
        threads: tuple[int, ...] = (1, 2),
        out: Path | None = RUN,
        resume: bool = True,
        progress: Callable[[Progress], None] | None = None,
        **board: object,
    ) -> ProfileRun:
        transport = Board(Device("board", "board", "fake"))
        for name, value in board.items():
            setattr(transport, name, value)
        monkeypatch.setattr(session, "open_transport", lambda device: transport)
        return profile_artifacts(
            [Path("tiny")], "board", threads, out=out, progress=progress, resume=resume
        )

    return run


def interrupt(sweep: Resume, after: int, **options: object) -> None:
    with pytest.raises(DeviceError, match="link lost"):
        sweep(ends_after=after, **options)


def assert_whole(path: Path, kept: bytes) -> None:
    """Every block is there once, and what was on disk is there as it was."""
    assert path.read_bytes().startswith(kept)
    results = read_results(path)
    assert results.problems == ()
    counted = Counter((block.key, block.block) for block in results.blocks)
    assert len(counted) == CELLS * BLOCKS
    assert set(counted.values()) == {1}


def whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def test_a_sweep_goes_on_where_a_dead_link_ended_it(sweep: Resume) -> None:
    interrupt(sweep, CELLS + 5)  # a pass for each cell's memory
    before = RUN.read_bytes()
    transport_runs = sweep().results
    assert_whole(RUN, before)
    assert transport_runs.header == read_results(RUN).header
    assert before.count(b'"kind":"block"') == 5


def test_the_order_is_that_of_a_sweep_that_was_not_interrupted(sweep: Resume) -> None:
    whole = sweep(out=Path("whole.jsonl")).results
    lines = Path("whole.jsonl").read_bytes().splitlines(keepends=True)
    RUN.write_bytes(b"".join(lines[:9]))
    resumed = sweep().results
    orders = [[(b.key, b.block) for b in results.blocks] for results in (whole, resumed)]
    assert orders[0] == orders[1]


@anew
@given(data=st.data())
def test_whatever_byte_a_crash_ends_the_file_at_no_block_is_lost_or_doubled(
    data: st.DataObject, sweep: Resume
) -> None:
    if not Path("whole.jsonl").exists():
        sweep(out=Path("whole.jsonl"))
    whole = Path("whole.jsonl").read_bytes()
    crashed = whole[: data.draw(st.integers(0, len(whole)), "bytes on disk")]
    RUN.write_bytes(crashed)
    sweep()
    assert_whole(RUN, whole_lines(crashed))


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """A child process that does the work and ends, with nothing of ours done in it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@settings(anew, max_examples=15)
@given(delays_s=st.lists(st.floats(0, 0.06), min_size=1, max_size=4))
def test_killed_at_random_moments_it_goes_on_and_no_block_is_lost_or_doubled(
    delays_s: list[float], sweep: Resume
) -> None:
    RUN.unlink(missing_ok=True)
    for delay_s in delays_s:
        before = whole_lines(RUN.read_bytes()) if RUN.exists() else b""
        with forked(sweep):
            time.sleep(delay_s)
        after = RUN.read_bytes() if RUN.exists() else b""
        assert after.startswith(before)
    kept = whole_lines(RUN.read_bytes()) if RUN.exists() else b""
    sweep()
    assert_whole(RUN, kept)


def test_a_finished_sweep_is_left_as_it_is(sweep: Resume) -> None:
    sweep()
    before = RUN.read_bytes()
    sweep(ends_after=0)
    assert RUN.read_bytes() == before


def test_a_file_that_does_not_exist_is_begun(sweep: Resume) -> None:
    sweep()
    assert_whole(RUN, b"")


def test_without_a_file_the_newest_unfinished_sweep_of_the_same_cells_goes_on(
    sweep: Resume,
) -> None:
    Path("results").mkdir()
    for number, name in enumerate(("old", "wanted", "other")):
        threads = (1, 4) if name == "other" else (1, 2)
        interrupt(sweep, 2, out=Path(f"results/{name}.jsonl"), threads=threads)
        os.utime(f"results/{name}.jsonl", (number, number))
    sweep(out=Path("results/finished.jsonl"))
    assert sweep(out=None).path == Path("results/wanted.jsonl")
    assert newest_unfinished(Path("results")) == Path("results/other.jsonl")


def test_nothing_to_go_on_with_says_what_to_do(sweep: Resume) -> None:
    with pytest.raises(ResultsError, match=r"no unfinished sweep of these models.* leave --resume"):
        sweep(out=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": (1, 2, 4)}, r"begun for threads 1,2, not 1,2,4"),
        (
            {"probed": PROBED.replace("@cores\n4", "@cores\n8")},
            r"begun on another machine: cores 4, not 8",
        ),
        ({"version": "0.17.0"}, r"version 0\.16\.0, then 0\.17\.0"),
    ],
)
def test_another_sweep_machine_or_runtime_is_refused_and_the_file_stays(
    sweep: Resume, change: dict[str, object], message: str
) -> None:
    interrupt(sweep, CELLS + 5)  # a pass for each cell's memory
    before = RUN.read_bytes()
    with pytest.raises((ResultsError, DeviceError), match=message):
        sweep(**change)
    assert RUN.read_bytes() == before


def test_another_runtime_is_refused_where_no_cell_has_two_blocks_yet(sweep: Resume) -> None:
    interrupt(sweep, 2)
    before = RUN.read_bytes()
    with pytest.raises(DeviceError, match=r"version 0\.16\.0, then 0\.17\.0"):
        sweep(version="0.17.0")
    assert RUN.read_bytes() == before


def test_a_file_of_two_runtimes_is_refused_and_its_blocks_are_told_of(sweep: Resume) -> None:
    interrupt(sweep, 4)  # two cells, each with a pass for its memory
    first, mark, last = RUN.read_text().rpartition('"version":"0.16.0"')
    RUN.write_text(first + mark.replace("0.16.0", "0.17.0") + last)
    said: list[Progress] = []
    with pytest.raises(DeviceError, match=r"version 0\.16\.0, then 0\.17\.0"):
        sweep(progress=said.append)
    assert [(one.done, one.total) for one in said] == [(2, CELLS * BLOCKS)]


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b'{"kind":"other"'])
def test_a_file_of_somebody_elses_is_not_touched(sweep: Resume, content: bytes) -> None:
    RUN.write_bytes(content)
    with pytest.raises(ResultsError, match=r"run\.jsonl"):
        sweep()
    assert RUN.read_bytes() == content


def test_two_at_once_do_not_write_one_file(sweep: Resume) -> None:
    interrupt(sweep, 2)
    with Journal(RUN, resume=True), pytest.raises(ResultsError, match="another bibench is writing"):
        sweep()
    sweep()
    assert_whole(RUN, b"")


def test_a_file_says_what_it_was_begun_for(sweep: Resume) -> None:
    interrupt(sweep, 2)
    begun = read_begun_sweep(RUN)
    assert begun.directories == [Path("tiny")]
    assert (begun.device, begun.threads, begun.preset) == ("board", (1, 2), "quick")


def test_a_model_folder_that_is_gone_is_named(sweep: Resume) -> None:
    interrupt(sweep, 2)
    Path("tiny").rename("moved")
    with pytest.raises(ResultsError, match="its model folder tiny is not here"):
        read_begun_sweep(RUN)
