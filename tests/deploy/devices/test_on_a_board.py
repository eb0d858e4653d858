"""What a user does with a board, over a real ssh server, and what can break meanwhile."""

from __future__ import annotations

import getpass
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bibench_deploy.artifact import Artifact
from bibench_deploy.cli.app import app
from bibench_deploy.devices.connections import connections_file
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling import runners
from bibench_deploy.profiling.environment import Environment
from bibench_deploy.profiling.journal import read_results
from bibench_deploy.profiling.presets import PRESETS, Preset
from bibench_deploy.profiling.runners._runner import Measured, Runner, failure, garbage
from bibench_deploy.profiling.session import profile_artifacts


class ScriptRunner(Runner):
    """Runs a script of the test in place of a runtime."""

    name = "script"
    target = "lce"

    def __init__(self, script: Path) -> None:
        self.script = script

    def obstacle(self, environment: Environment) -> str | None:
        return None

    def files(self, artifact: Artifact, environment: Environment) -> dict[str, Path]:
        return {"model": artifact.model_path, "script": self.script}

    def command(
        self, python: str, files: Mapping[str, str], threads: int, preset: Preset, seed: int
    ) -> list[str]:
        return [files["script"], files["model"], str(self.script.parent)]

    def read(
        self, result: CommandResult, artifact: Artifact, files: Mapping[str, Path], threads: int
    ) -> Measured:
        if result.exit_code != 0:
            raise failure(result, artifact)
        try:
            return Measured(**json.loads(result.stdout))
        except (ValueError, TypeError) as error:
            raise garbage(result, artifact) from error


GOOD = """#!/bin/sh
echo '{"samples_ms": [1.0, 1.1], "warmup_count": 1, "warmup_settled": true, "other_load": null,
"init_ms": 1.0, "peak_memory_mib": null, "runtime": {"name": "script"}, "note": null}'
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.0, 0.1, 3, 0.0, 0.2))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "board" / "work"


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def added(sshd, work: Path, run: Callable[..., Result]) -> None:
    """The device `pi4`, reached over ssh."""
    done = run(
        "devices", "add", "pi4", "--ssh", f"{getpass.getuser()}@127.0.0.1:{sshd.port}",
        "--python", sys.executable, "--ssh-config", sshd.config(), "--work-folder", work,
    )  # fmt: skip
    assert done.exit_code == 0, done.output


@pytest.fixture
def runs(
    added: None, make_lce_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str | bytes], None]:
    """runs(script): profile an artifact on pi4 with this script as its runtime."""
    make_lce_artifact(Path("out/tiny"), has_twin=False)

    def profile(script: str | bytes) -> None:
        file = Path("script").resolve()
        file.write_bytes(script if isinstance(script, bytes) else script.encode())
        monkeypatch.setattr(runners, "runner_names", lambda: ("script",))
        monkeypatch.setattr(runners, "load_runner", lambda name: ScriptRunner(file))
        profile_artifacts([Path("out/tiny")], "pi4", threads=(1,), out=Path("run.jsonl"))

    return profile


def one_line(runs: Callable[[str | bytes], None], script: str | bytes) -> str:
    with pytest.raises(DeviceError) as caught:
        runs(script)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_board_is_added_checked_profiled_and_cleaned(
    added: None,
    run: Callable[..., Result],
    make_lce_artifact: Callable[..., Artifact],
    work: Path,
) -> None:
    assert connections_file().stat().st_mode & 0o777 == 0o600
    listed = run("devices", "list").stdout
    assert "Raspberry Pi 4B" in listed
    assert f"ssh {getpass.getuser()}@127.0.0.1:" in listed
    checked = run("devices", "check", "pi4")
    assert checked.exit_code == 0, checked.output
    assert "lce                  can run" in checked.stdout
    assert "devices.toml says aarch64: is this a Raspberry Pi 4B?" in checked.stdout
    make_lce_artifact(Path("out/tiny"))
    profiled = run("profile", "--device", "pi4", "--threads", "1,2", "--out", "run.jsonl")
    assert profiled.exit_code == 0, profiled.output
    results = read_results(Path("run.jsonl"))
    assert results.problems == ()
    assert {cell.key.device for cell in results.cells.values()} == {"pi4"}
    assert len(results.blocks) == 12
    # Two models and one script, and no lease.
    assert len(list(work.iterdir())) == 3
    cleaned = run("devices", "clean", "pi4")
    assert cleaned.stdout.startswith("pi4: 3 files removed, 0.")
    assert list(work.iterdir()) == []


def test_a_float_network_is_profiled_there_by_onnx_runtime(
    added: None, run: Callable[..., Result], make_proto: Callable[..., object]
) -> None:
    import numpy as np
    import onnx

    proto = make_proto(
        "g (float[1,3,8,8] x) => (y) { y = Conv(x, w) }", w=np.ones((2, 3, 3, 3), np.float32)
    )
    onnx.save(proto, "net.onnx")
    exported = run("export", "net.onnx", "--target", "onnx", "--out", "out/net")
    assert exported.exit_code == 0, exported.output
    profiled = run("profile", "out/net", "--device", "pi4", "--threads", "1", "--json")
    assert profiled.exit_code == 0, profiled.output
    [cell] = json.loads(profiled.stdout)["cells"]
    assert cell["runtime"]["name"] == "onnxruntime"
    assert cell["latency_ms"]["p50"] > 0


def test_a_phone_is_added_profiled_and_cleaned_over_adb(
    adbd, run: Callable[..., Result], make_lce_artifact: Callable[..., Artifact], work: Path
) -> None:
    added = run(
        "devices", "add", "kirin990", "--adb", adbd.serial,
        "--python", sys.executable, "--work-folder", work,
    )  # fmt: skip
    assert added.exit_code == 0, added.output
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    profiled = run("profile", "--device", "kirin990", "--threads", "1", "--out", "run.jsonl")
    assert profiled.exit_code == 0, profiled.output
    assert len(read_results(Path("run.jsonl")).blocks) == 3
    assert run("devices", "clean", "kirin990").stdout.startswith("kirin990: 2 files removed")


def test_the_registered_thread_counts_are_a_sweeps_own(
    added: None, run: Callable[..., Result], make_lce_artifact: Callable[..., Artifact]
) -> None:
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    planned = run("profile", "--device", "pi4", "--dry-run").stdout
    assert [line.partition(": ")[0] for line in planned.splitlines()] == [
        f"tiny on pi4, threads {threads}" for threads in (1, 2, 4, 8)
    ]


def test_a_chip_without_a_connection_says_how_to_add_one(
    run: Callable[..., Result], make_lce_artifact: Callable[..., Artifact]
) -> None:
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    for command in (["profile", "--device"], ["devices", "check"], ["devices", "clean"]):
        done = run(*command, "kirin990")
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1] == (
            "bibench: device kirin990 (HiSilicon Kirin 990) is known, but not how to reach it; "
            "run: bibench devices add kirin990 --ssh USER@HOST, or --adb SERIAL"
        )
    assert not Path("results").exists()


def test_a_good_runner_is_read(runs: Callable[[str | bytes], None]) -> None:
    runs(GOOD)
    assert len(read_results(Path("run.jsonl")).blocks) == 3


def test_a_runner_that_is_killed_is_said_so(runs: Callable[[str | bytes], None]) -> None:
    told = one_line(runs, "#!/bin/sh\nkill -KILL $$\n")
    assert "tiny: the runner failed (signal 9, Killed): nothing on stderr" in told
    assert not Path("run.jsonl").exists()


def test_a_runner_that_hangs_is_ended(
    runs: Callable[[str | bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preset, "timeout_s", 1.0)
    assert "device pi4: not finished after 1 s, so it was ended" in one_line(
        runs, "#!/bin/sh\nsleep 600\n"
    )


def test_a_runner_that_prints_garbage_is_quoted(runs: Callable[[str | bytes], None]) -> None:
    told = one_line(runs, "#!/bin/sh\nprintf 'line 1\\nline 2\\033[31m'\n")
    assert r"tiny: the runner printed something else than its result: 'line 1\nline 2\x1b" in told


def test_a_runner_of_another_instruction_set_is_said_so(
    runs: Callable[[str | bytes], None],
) -> None:
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\x34\x12" + bytes(44)
    told = one_line(runs, header + bytes(range(256)) * 8)
    assert "Exec format error: it is built for another instruction set" in told


def test_a_runner_that_misses_a_library_names_it(runs: Callable[[str | bytes], None]) -> None:
    program = Path(shutil.which("true") or "/bin/true").resolve().read_bytes()
    told = one_line(runs, program.replace(b"libc.so.6\0", b"libz.so.X\0"))
    assert "error while loading shared libraries: libz.so.X: cannot open shared object" in told


def test_a_runner_with_an_illegal_instruction_is_said_so(
    runs: Callable[[str | bytes], None],
) -> None:
    assert "(signal 4, Illegal instruction)" in one_line(runs, "#!/bin/sh\nkill -ILL $$\n")


def test_a_restart_that_took_the_work_folder_is_said_and_what_was_measured_stays(
    runs: Callable[[str | bytes], None], work: Path
) -> None:
    """The second block finds the model gone."""
    script = (
        '#!/bin/sh\nif [ -e "$2/second" ]; then rm -rf "$(dirname "$1")"/[0-9a-f]*; cat "$1"\n'
        f'else : > "$2/second"; {GOOD.partition(chr(10))[2]}fi\n'
    )
    told = one_line(runs, script)
    assert "it was restarted or cleaned meanwhile; run this again" in told
    assert len(read_results(Path("run.jsonl")).blocks) == 1
    assert not (work / "lease").exists()


def test_two_sweeps_at_once_do_not_disturb_each_other(
    runs: Callable[[str | bytes], None], work: Path
) -> None:
    (work / "lease").mkdir(parents=True)
    (work / "lease" / "owner").write_text("0123 lab-machine 77\n")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    uptime = int(float(Path("/proc/uptime").read_text().split()[0]))
    (work / "lease" / "beat").write_text(f"{boot} {uptime - 3}\n")
    told = one_line(runs, GOOD)
    assert "device pi4: in use by bibench on lab-machine (process 77, last sign of life" in told
    assert not Path("run.jsonl").exists()


STAGES = {
    "connecting": "import bibench_deploy.devices.transports.ssh as m\n"
    "old = m.SshTransport._connect\n"
    "m.SshTransport._connect = lambda self: (old(self), stop())[0]\n",
    "pushing": "import bibench_deploy.devices.transports.ssh as m\n"
    "old = m.SshTransport.upload\n"
    "m.SshTransport.upload = lambda self, *a: (old(self, *a), stop())[0]\n",
    "measuring": "",
}


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_ends_in_one_line_and_leaves_nothing_behind(
    added: None, make_lce_artifact: Callable[..., Artifact], work: Path, stage: str
) -> None:
    make_lce_artifact(Path("out/tiny"), has_twin=False)
    program = (
        "import time\n"
        "def stop(): open('ready', 'w').close(); time.sleep(600)\n"
        f"{STAGES[stage]}"
        "from bibench_deploy.__main__ import main; main()\n"
    )
    arguments = ["profile", "--device", "pi4", "--threads", "1", "--preset", "standard"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--out", "run.jsonl"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as ours:  # fmt: skip
        deadline = time.monotonic() + 60
        while not Path("ready").exists():
            file = Path("run.jsonl")
            if file.exists() and '"kind":"block"' in file.read_text():
                break
            assert ours.poll() is None, ours.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ours.send_signal(signal.SIGINT)
        stdout, stderr = ours.communicate(timeout=30)
    assert (ours.returncode, stdout) == (2, "")
    last = stderr.splitlines()[-1]
    assert last.startswith("bibench: interrupted")
    assert "Traceback" not in stderr
    there = list(work.iterdir()) if work.exists() else []
    assert not [entry for entry in there if entry.name.startswith(("part", "lease"))]
    deadline = time.monotonic() + 20
    while orphans(work):
        assert time.monotonic() < deadline, orphans(work)
        time.sleep(0.05)


def orphans(work: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(work) in line:
            found.append(line)
    return found
