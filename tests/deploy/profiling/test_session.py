from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.errors import ArtifactError, DeviceError, ResultsError, UnknownNameError
from bibench_deploy.profiling import session
from bibench_deploy.profiling.journal import Block, CellKey, Journal, read_results
from bibench_deploy.profiling.presets import PRESETS, Preset
from bibench_deploy.profiling.session import (
    Progress,
    latest_artifact,
    plan_profile,
    profile_artifacts,
)

MakeArtifact = Callable[..., Artifact]

PRINTED = json.dumps(
    {
        "samples_ms": [1.0, 1.0, 1.0],
        "warmup_count": 10,
        "warmup_settled": True,
        "other_load": 0.0,
        "init_ms": 2.0,
        "peak_memory_mib": 50.0,
        "larq_compute_engine": "0.16.0",
        "extension_sha256": "00",
        "python": "3.11.7",
        "numpy": "1.26.4",
    }
)


# What a board with LCE's package would say, cut to what counts.
PROBED = """
@system
Linux
@machine
x86_64
@cores
4
@clocks
0 scaling_governor ondemand
@python
3.9.2
larq-compute-engine 0.16.0
numpy 1.26.4
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The same path through the code as a real preset, in a fraction of its time.
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.0, 0.1, 3, 0.0, 0.2))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTransport:
    """A board that has answered the questions for its fingerprint."""
    Path("devices.toml").write_text('[board]\ntransport = "fake"\n')
    transport = FakeTransport(Device("board", "board", "fake"))
    monkeypatch.setattr(session, "open_transport", lambda device: transport)
    transport.answer(PROBED)
    return transport


def id_of(artifact: Artifact) -> str:
    return artifact.model_sha256[:12]


def test_a_model_and_its_twin_are_measured_with_every_thread_count(
    make_lce_artifact: MakeArtifact,
) -> None:
    model = make_lce_artifact(Path("out/tiny"))
    twin = Artifact.load(Path("out/tiny/fp32"))
    run = profile_artifacts([Path("out/tiny")], threads=(2, 1), command=["bibench", "profile"])
    results = run.results
    assert list(results.cells) == [
        CellKey(id_of(artifact), "local", threads)
        for artifact in (model, twin)
        for threads in (1, 2)
    ]
    assert results.problems == ()
    assert results.artifacts[id_of(model)].twin == id_of(twin)
    assert results.artifacts[id_of(model)].manifest == model.manifest
    assert results.artifacts[id_of(model)].path == "out/tiny"
    assert results.header.command == ("bibench", "profile")
    assert results.header.environment["cores"] >= 1
    for cell in results.cells.values():
        assert cell.block_count == 3
        assert cell.sample_count >= 9
        assert cell.runtime["name"] == "larq-compute-engine"
        assert cell.peak_memory_mib is not None
        assert cell.peak_memory_mib > 10  # Python and numpy alone take more
    assert results.speed_up(results.cells[CellKey(id_of(model), "local", 1)]) is not None


def test_the_file_is_named_after_what_was_run_and_when(make_lce_artifact: MakeArtifact) -> None:
    make_lce_artifact(Path("out/tiny"), "tiny-net", has_twin=False)
    run = profile_artifacts([Path("out/tiny")], threads=(1,))
    assert run.path.parent == Path("results")
    assert run.path.name.startswith("tiny-net-2")
    assert run.path.name.endswith("Z.jsonl")
    assert run.results.header.run == run.path.stem


def test_every_round_measures_each_cell_once_in_an_order_that_the_seed_gives(
    make_lce_artifact: MakeArtifact, fake: FakeTransport
) -> None:
    make_lce_artifact(Path("tiny"))
    orders = []
    for name in ("1.jsonl", "2.jsonl"):
        for _ in range(32):
            fake.answer(PRINTED)
        run = profile_artifacts(
            [Path("tiny")], "board", threads=(1, 2, 4, 8), out=Path(name), seed=5
        )
        orders.append([(block.key, block.block) for block in run.results.blocks])
        fake.answer(PROBED)
    assert orders[0] == orders[1]
    rounds = [orders[0][start : start + 8] for start in (0, 8, 16)]
    assert all(len({key for key, _ in one}) == 8 for one in rounds)
    assert [{number for _, number in one} for one in rounds] == [{0}, {1}, {2}]
    assert [key for key, _ in rounds[0]] != [key for key, _ in rounds[1]]


def test_the_environment_is_that_of_the_device(
    make_lce_artifact: MakeArtifact, fake: FakeTransport
) -> None:
    make_lce_artifact(Path("tiny"), has_twin=False)
    for _ in range(4):
        fake.answer(PRINTED)
    results = profile_artifacts([Path("tiny")], "board", threads=(1,)).results
    assert results.header.environment["machine"] == "x86_64"
    assert results.header.environment["governor"] == "ondemand"
    assert results.path.name.startswith("tiny-board-")


def test_progress_is_said_before_each_block_and_at_the_end(
    make_lce_artifact: MakeArtifact, fake: FakeTransport
) -> None:
    make_lce_artifact(Path("tiny"), has_twin=False)
    for _ in range(4):
        fake.answer(PRINTED)
    said: list[Progress] = []
    profile_artifacts([Path("tiny")], "board", threads=(1,), progress=said.append)
    assert [(one.done, one.total, one.name) for one in said] == [
        (0, 3, "tiny"),
        (1, 3, "tiny"),
        (2, 3, "tiny"),
        (3, 3, ""),
    ]


def test_memory_is_of_a_pass_of_its_own_that_is_no_latency(
    make_lce_artifact: MakeArtifact, fake: FakeTransport
) -> None:
    make_lce_artifact(Path("tiny"), has_twin=False)
    printed = json.loads(PRINTED)
    fake.answer(json.dumps(printed | {"samples_ms": [99.0], "peak_memory_mib": 70.0}))
    for _ in range(3):
        fake.answer(PRINTED)
    results = profile_artifacts([Path("tiny")], "board", threads=(1,)).results
    assert [block.peak_memory_mib for block in results.blocks] == [70.0, None, None]
    [cell] = results.cells.values()
    assert (cell.peak_memory_mib, cell.sample_count, cell.latency_ms.p90) == (70.0, 9, 1.0)
    _, memory, *blocks = fake.commands
    assert memory[memory.index("--min-seconds") + 1] == "0.0"
    assert memory not in blocks


@pytest.mark.parametrize("error", [DeviceError("device board: link lost"), KeyboardInterrupt()])
def test_what_was_measured_before_a_failure_stays(
    make_lce_artifact: MakeArtifact, fake: FakeTransport, error: BaseException
) -> None:
    make_lce_artifact(Path("tiny"), has_twin=False)
    for _ in range(3):
        fake.answer(PRINTED)
    fake.fail(error)
    with pytest.raises(type(error)):
        profile_artifacts([Path("tiny")], "board", threads=(1,), out=Path("run.jsonl"))
    results = read_results(Path("run.jsonl"))
    assert [cell.block_count for cell in results.cells.values()] == [2]
    assert len(results.problems) == 1


def test_a_block_that_is_kept_is_told_of_where_an_interruption_comes_first(
    make_lce_artifact: MakeArtifact, fake: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lce_artifact(Path("tiny"), has_twin=False)
    for _ in range(2):
        fake.answer(PRINTED)
    write_block = Journal.write_block

    def interrupted_behind_it(self: Journal, block: Block) -> None:
        write_block(self, block)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "write_block", interrupted_behind_it)
    said: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        profile_artifacts([Path("tiny")], "board", threads=(1,), progress=said.append)
    assert [(one.done, one.total) for one in said] == [(0, 3), (1, 3)]


def test_a_run_that_measured_nothing_leaves_no_file(
    make_lce_artifact: MakeArtifact, fake: FakeTransport
) -> None:
    make_lce_artifact(Path("tiny"), has_twin=False)
    fake.answer(stderr="run_model: it broke", exit_code=2)
    with pytest.raises(DeviceError, match="tiny: the runner failed"):
        profile_artifacts([Path("tiny")], "board", threads=(1,), out=Path("run.jsonl"))
    assert not Path("run.jsonl").exists()


def test_a_model_that_is_not_the_exported_one_is_refused_before_anything_runs(
    make_lce_artifact: MakeArtifact, fake: FakeTransport
) -> None:
    artifact = make_lce_artifact(Path("tiny"))
    artifact.model_path.write_bytes(artifact.model_path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="sha256"):
        profile_artifacts([Path("tiny")], "board")
    assert fake.commands == []
    assert not Path("results").exists()


def test_an_existing_results_file_is_kept(make_lce_artifact: MakeArtifact) -> None:
    make_lce_artifact(Path("tiny"))
    Path("run.jsonl").write_text("precious")
    with pytest.raises(ResultsError, match="exists"):
        profile_artifacts([Path("tiny")], out=Path("run.jsonl"))
    assert Path("run.jsonl").read_text() == "precious"


def test_an_absolute_folder_is_recorded_by_its_name_alone(
    make_lce_artifact: MakeArtifact, tmp_path: Path
) -> None:
    make_lce_artifact(tmp_path / "out" / "tiny", has_twin=False)
    run = profile_artifacts([tmp_path / "out" / "tiny"], threads=(1,))
    assert [artifact.path for artifact in run.results.artifacts.values()] == ["tiny"]
    assert str(tmp_path) not in run.path.read_text()


def test_the_same_model_in_two_folders_is_measured_once(make_lce_artifact: MakeArtifact) -> None:
    make_lce_artifact(Path("a"))
    make_lce_artifact(Path("b"))
    plan = plan_profile([Path("a"), Path("b")], threads=(1, 1, 2))
    assert Counter(cell.key.threads for cell in plan.cells) == {1: 2, 2: 2}


def test_a_float_model_that_is_its_own_twin_is_linked_to_no_twin(
    make_lce_artifact: MakeArtifact,
) -> None:
    make_lce_artifact(Path("a"))
    Path("b").mkdir()
    Path("a/fp32").rename("b/fp32")
    for file in ("manifest.json", "model.tflite"):
        Path("b", file).write_bytes(Path("b/fp32", file).read_bytes())
    plan = plan_profile([Path("b")])
    assert (len(plan.artifacts), plan.twins, plan.run_name) == (1, {}, "tiny")


def test_several_models_are_named_by_the_first_and_their_number(
    make_lce_artifact: MakeArtifact,
) -> None:
    make_lce_artifact(Path("a"), "first")
    assert plan_profile([Path("a"), Path("a/fp32")]).run_name == "first"
    Path("a/fp32").rename("b")
    assert plan_profile([Path("a"), Path("b")]).run_name == "first-and-1-more"


def test_a_plan_without_folders_or_threads_is_a_value_error(
    make_lce_artifact: MakeArtifact,
) -> None:
    make_lce_artifact(Path("a"))
    with pytest.raises(ValueError, match="at least one artifact"):
        plan_profile([])
    with pytest.raises(ValueError, match="at least 1"):
        plan_profile([Path("a")], threads=(0,))
    with pytest.raises(ValueError, match="at least 1"):
        plan_profile([Path("a")], threads=())


def test_unknown_names_are_refused(make_lce_artifact: MakeArtifact) -> None:
    make_lce_artifact(Path("a"))
    with pytest.raises(UnknownNameError, match='unknown device "lokal"'):
        plan_profile([Path("a")], device="lokal")
    with pytest.raises(UnknownNameError, match='unknown preset "slow"'):
        plan_profile([Path("a")], preset="slow")
    manifest = json.loads(Path("a/manifest.json").read_text())
    Path("a/manifest.json").write_text(json.dumps({**manifest, "target": "tflite"}))
    with pytest.raises(UnknownNameError, match='unknown runner for target "tflite"'):
        plan_profile([Path("a")])


def test_the_latest_export_is_the_newest_manifest_that_is_no_twin(
    make_lce_artifact: MakeArtifact,
) -> None:
    for age, name in enumerate(("newest", "older")):
        make_lce_artifact(Path("out") / name, has_twin=False)
        os.utime(Path("out") / name / "manifest.json", (1e9 - age, 1e9 - age))
    make_lce_artifact(Path("elsewhere"))
    Path("elsewhere/fp32").rename("out/twin")
    assert latest_artifact() == Path("out/newest")


def test_no_export_says_how_to_make_one() -> None:
    with pytest.raises(ArtifactError, match=r"under \./out; run: bibench export"):
        latest_artifact()
