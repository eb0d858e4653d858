"""Two boards in one command, each over a real ssh server: side by side, and what can break."""

from __future__ import annotations

import getpass
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
from bibench_deploy.cli._several_devices import run_sweeps
from bibench_deploy.cli.app import app
from bibench_deploy.profiling.journal import read_results
from bibench_deploy.profiling.session import Progress
from tests.deploy.devices.conftest import free_port, running, wait_until

BOARDS = ("pi4", "kirin990")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_lce_artifact: Callable[..., Artifact],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_lce_artifact(Path("out/tiny"), has_twin=False)


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def boards(sshd, tmp_path: Path, run: Callable[..., Result]) -> None:
    """Two devices on one server, with a work folder each."""
    for name in BOARDS:
        add(run, sshd, name, sshd.port, tmp_path / f"{name} work")


def add(run: Callable[..., Result], sshd, name: str, port: int, work: Path) -> None:
    done = run(
        "devices", "add", name, "--ssh", f"{getpass.getuser()}@127.0.0.1:{port}",
        "--python", sys.executable, "--ssh-config", sshd.config(), "--work-folder", work,
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_each_device_has_a_results_file_and_its_lines_in_the_table(
    boards: None, run: Callable[..., Result]
) -> None:
    done = run("profile", "out/tiny", "--device", ",".join(BOARDS), "--threads", "1")
    assert done.exit_code == 0, done.output
    files = sorted(Path("results").iterdir())
    found = [read_results(file) for file in files]
    assert [{block.key.device for block in one.blocks} for one in found] == [
        {"kirin990"}, {"pi4"}
    ]  # fmt: skip
    assert all(one.problems == () and len(one.blocks) == 3 for one in found)
    assert all("--events" not in one.header.command for one in found)
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[0] == "device"
    assert [line.split()[:3] for line in lines[:2]] == [[name, "tiny", "1"] for name in BOARDS]
    assert {line.partition(":")[0] for line in done.stderr.splitlines() if "block" in line} == {
        *BOARDS
    }


def test_what_one_device_cannot_do_is_said_with_its_name(
    boards: None, run: Callable[..., Result]
) -> None:
    words = ["profile", "out/tiny", "--device", ",".join(BOARDS), "--threads", "1"]
    done = run(*words, "--operators")
    assert done.exit_code == 0, done.output
    for name in BOARDS:
        assert f"{name}: tiny has no profile of operators: its runtime has no" in done.stderr


def test_one_that_fails_keeps_no_other_from_its_end(
    boards: None, sshd, run: Callable[..., Result], tmp_path: Path
) -> None:
    add(run, sshd, "kirin970", free_port(), tmp_path / "work")
    done = run(
        "profile", "--device", "kirin970,pi4", "--threads", "1", "--out", "r.jsonl", "--json"
    )
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert [Path(sweep["path"]).name for sweep in document["sweeps"]] == ["r-pi4.jsonl"]
    assert "cannot be reached" in document["failed"]["kirin970"]
    *_, named, last = done.stderr.splitlines()
    assert named.startswith("kirin970: device kirin970: ")
    assert last.startswith("bibench: 1 of 2 devices failed: kirin970; run it again with --device")
    assert not Path("r-kirin970.jsonl").exists()


def test_a_device_that_nobody_has_connected_is_said_before_any_starts(
    boards: None, run: Callable[..., Result]
) -> None:
    done = run("profile", "--device", "pi4,kirin985", "--threads", "1")
    assert done.exit_code == 2
    assert "kirin985 (HiSilicon Kirin 985) is known, but not how to reach it" in done.stderr
    assert not Path("results").exists()


@pytest.mark.parametrize("names", ["pi4,", ",", "pi4,,local"])
def test_a_list_with_an_empty_name_is_refused(run: Callable[..., Result], names: str) -> None:
    done = run("profile", "--device", names)
    assert done.exit_code == 2
    assert "is no list of names; write for example pi4,kirin990" in done.stderr


def test_an_interruption_ends_all_and_each_goes_on_where_it_was(
    boards: None, run: Callable[..., Result], tmp_path: Path
) -> None:
    words = ["profile", "--device", ",".join(BOARDS), "--threads", "1,2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bibench_deploy", *words, "out/tiny"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def has_blocks() -> bool:
        files = list(Path("results").glob("*.jsonl"))
        return len(files) == 2 and all('"kind":"block"' in file.read_text() for file in files)

    wait_until(has_blocks, "for a block of each", 60)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "go on with: bibench profile --device pi4,kirin990 --resume" in errors
    assert errors.splitlines()[-1].startswith("bibench: interrupted")
    assert running(str(tmp_path)) == []
    before = {file: len(read_results(file).blocks) for file in Path("results").iterdir()}
    assert all(0 < count < 6 for count in before.values())
    done = run("profile", "--device", ",".join(BOARDS), "--resume")
    assert done.exit_code == 0, done.output
    assert {
        file: len(read_results(file).blocks) for file in Path("results").iterdir()
    } == dict.fromkeys(before, 6)


def test_what_a_sweep_says_while_it_is_ended_is_heard(boards: None) -> None:
    commands = {name: ["--device", name, "--threads", "1,2", "--", "out/tiny"] for name in BOARDS}
    heard: dict[str, int] = {}
    interrupted: list[str] = []

    def interrupted_by_the_first_block(device: str, said: Progress) -> None:
        heard[device] = said.done
        if said.done and not interrupted:
            interrupted.append(device)
            time.sleep(2)  # the others go on meanwhile
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweeps(commands, interrupted_by_the_first_block)
    files = [read_results(file) for file in Path("results").iterdir()]
    kept = {one.header.planned[0].key.device: len(one.blocks) for one in files}
    assert kept == {device: count for device, count in heard.items() if count}


def test_one_that_had_finished_is_not_gone_on_with(
    run: Callable[..., Result], boards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(commands, progress):
        for name, done in zip(commands, (6, 2), strict=True):
            progress(name, Progress(done, 6, None, ""))
        raise KeyboardInterrupt

    monkeypatch.setattr("bibench_deploy.cli.profile.run_sweeps", ended)
    words = ["profile", "out/tiny", "--device", ",".join(BOARDS), "--threads", "1,2"]
    assert "go on with: bibench profile --device kirin990 --resume" in run(*words).stderr
    with_out = run(*words, "--out", "r.jsonl").stderr
    assert "bibench profile --device pi4,kirin990 --out r.jsonl --resume" in with_out


@pytest.mark.parametrize(
    ("starter", "ending"),
    [
        ([], signal.SIGINT),
        (["sh", "-c", 'trap "" INT; exec "$@"', "sh"], signal.SIGTERM),  # in the background
    ],
)
def test_an_interruption_before_any_block_leads_to_no_file(
    boards: None, tmp_path: Path, starter: list[str], ending: signal.Signals
) -> None:
    words = ["profile", "out/tiny", "--device", ",".join(BOARDS), "--threads", "1"]
    process = subprocess.Popen(
        [*starter, sys.executable, "-m", "bibench_deploy", *words, "--preset", "sustained"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def has_files() -> bool:
        return len(list(Path("results").glob("*.jsonl"))) == 2

    wait_until(has_files, "for a file of each", 60)
    os.kill(process.pid, ending)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "go on with" not in errors
    assert errors.splitlines()[-1].startswith("bibench: interrupted")
    assert list(Path("results").iterdir()) == []


def test_a_dry_run_lists_the_cells_of_all(boards: None, run: Callable[..., Result]) -> None:
    done = run("profile", "--device", "pi4,local,pi4", "--threads", "1", "--dry-run")
    assert done.stdout.splitlines() == [
        "tiny on pi4, threads 1: 3 blocks",
        "tiny on local, threads 1: 3 blocks",
    ]
