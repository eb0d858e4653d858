from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bibench_deploy.artifact import Artifact
from bibench_deploy.cli import profile as command
from bibench_deploy.cli.app import app
from bibench_deploy.devices.transports.local import LocalTransport
from bibench_deploy.errors import DeployError
from bibench_deploy.profiling.journal import read_results
from bibench_deploy.profiling.presets import PRESETS, Preset

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.0, 0.1, 3, 0.0, 0.2))


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, ["profile", *arguments])


def test_a_table_and_a_results_file_come_out(
    run: Callable[..., Result], make_lce_artifact: MakeArtifact
) -> None:
    make_lce_artifact(Path("out/tiny"))
    done = run("out/tiny", "--threads", "1,2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    headings = "model threads p50 ms p90 ms speed-up size MB verdict kernels"
    assert " ".join(lines[0].split()) == headings
    assert [line.split()[0] for line in lines[1:5]] == ["tiny"] * 4
    assert "indirect + xnnpack" in lines[1]
    assert "×" in lines[1]
    assert "tiny (FP32 twin)" in lines[3]
    assert any("the indirect binary kernel runs on one thread" in line for line in lines)
    [file] = Path("results").iterdir()
    assert f"results: {file}" in done.stderr
    assert "block 1/12: tiny, threads" in done.stderr
    assert read_results(file).problems == ()


def test_json_is_all_that_stands_on_stdout(
    run: Callable[..., Result], make_lce_artifact: MakeArtifact
) -> None:
    artifact = make_lce_artifact(Path("out/tiny"))
    done = run("--json", "--threads", "1", "--out", "run.jsonl")
    assert "latest export: out/tiny" in done.stderr
    printed = json.loads(done.stdout)
    assert printed["path"] == "run.jsonl"
    first, second = printed["cells"]
    assert (first["role"], second["role"]) == ("model", "fp32_twin")
    assert first["latency_ms"].keys() == {"p50", "p90", "low_ms", "high_ms"}
    assert first["model_sha256"] == artifact.model_sha256
    assert first["size_bytes"] == artifact.size_bytes
    assert first["threads"] == 1
    assert first["verdict"] in ("stable", "noisy")
    speed_up = second["latency_ms"]["p50"] / first["latency_ms"]["p50"]
    assert first["speed_up"] == pytest.approx(speed_up)
    assert second["speed_up"] is None


def test_an_interrupted_sweep_goes_on_with_nothing_said_again(
    run: Callable[..., Result], make_lce_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    real_run = LocalTransport.run
    runs = []

    def dies_in_the_third_block(self, arguments, *, timeout_s):
        runs.append(arguments)
        if len(runs) == 6:  # the fingerprint, then for each cell its memory and a block
            raise KeyboardInterrupt
        return real_run(self, arguments, timeout_s=timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(LocalTransport, "run", dies_in_the_third_block)
        cut = run("out/tiny", "--threads", "1,2")
    assert cut.exit_code == 2
    assert "blocks kept: 2; go on with: bibench profile --resume" in cut.stderr
    [file] = Path("results").iterdir()
    before = file.read_bytes()
    done = run("--resume")
    assert done.exit_code == 0, done.output
    assert f"going on with {file}" in done.stderr
    assert "block 3/6: tiny" in done.stderr
    assert file.read_bytes().startswith(before)
    assert [cell.block_count for cell in read_results(file).cells.values()] == [3, 3]
    assert run("--resume").exit_code == 2  # nothing is unfinished now


def test_a_dry_run_prints_the_cells_and_measures_nothing(
    run: Callable[..., Result], make_lce_artifact: MakeArtifact
) -> None:
    make_lce_artifact(Path("out/tiny"))
    done = run("out/tiny", "--threads", "1,2", "--dry-run")
    assert done.stdout.splitlines() == [
        "tiny on local, threads 1: 3 blocks",
        "tiny on local, threads 2: 3 blocks",
        "tiny (FP32 twin) on local, threads 1: 3 blocks",
        "tiny (FP32 twin) on local, threads 2: 3 blocks",
    ]
    assert not Path("results").exists()
    as_json = json.loads(run("out/tiny", "--threads", "1,2", "--dry-run", "--json").stdout)
    assert len(as_json["cells"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "1,x"], '--threads "1,x" is no list of thread counts; write whole'),
        (["--device", "loca"], 'unknown device "loca" (did you mean "local"?)'),
        (["--preset", "quik"], 'unknown preset "quik" (did you mean "quick"?)'),
        (["nowhere"], "nowhere: no readable manifest.json"),
        (["--out", "taken.jsonl"], "taken.jsonl exists; go on with it by --resume, or choose"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run: Callable[..., Result],
    make_lce_artifact: MakeArtifact,
    arguments: list[str],
    message: str,
) -> None:
    make_lce_artifact(Path("out/tiny"))
    Path("taken.jsonl").touch()
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("bibench: ")
    assert message in last_line


@pytest.mark.parametrize("text", ["", ",", "0", "1,,2", "-1", "1;2", "1.5", "²", "99999", "all"])
def test_thread_counts_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(DeployError, match="is no list of thread counts"):
        command.parse_threads(text)


def test_thread_counts_are_sorted_and_counted_once() -> None:
    assert command.parse_threads("8, 1,2,2") == (1, 2, 8)


@pytest.mark.parametrize(
    ("cores", "threads"),
    [(1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))],
)
def test_the_default_thread_counts_lead_up_to_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: tuple[int, ...]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert command.default_threads() == threads


def test_an_absolute_path_on_the_command_line_is_recorded_by_its_name(
    run: Callable[..., Result],
    make_lce_artifact: MakeArtifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    monkeypatch.setattr(sys, "argv", ["bibench", "profile", str(tmp_path / "out" / "tiny")])
    run(str(tmp_path / "out" / "tiny"), "--threads", "1", "--out", "run.jsonl")
    header = read_results(Path("run.jsonl")).header
    assert header.command == ("bibench", "profile", "tiny")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_a_readable_file_and_no_process(
    make_lce_artifact: MakeArtifact, number: signal.Signals
) -> None:
    make_lce_artifact(Path("out/tiny"))
    arguments = ["profile", "--threads", "1", "--preset", "standard", "--out", "run.jsonl"]
    with subprocess.Popen(
        [sys.executable, "-c", "from bibench_deploy.__main__ import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ours:
        # The second block, because the line of the last one may still be on its way to the disk.
        for _ in range(2000):
            file = Path("run.jsonl")
            if file.exists() and file.read_text().count('"kind":"block"') >= 2:
                break
            time.sleep(0.02)
        ours.send_signal(number)
        # The child shares our pipes: this returns only when it is gone as well.
        stdout, stderr = ours.communicate(timeout=20)
    assert ours.returncode == 2
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("bibench: interrupted")
    results = read_results(Path("run.jsonl"))
    assert len(results.blocks) >= 1
    assert "interrupted" in results.problems[0]


def test_importing_the_command_brings_nothing_heavy() -> None:
    program = (
        "import sys; import bibench_deploy.cli.profile\n"
        "print(sorted({'numpy', 'tomlkit', 'torch', 'tensorflow', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
