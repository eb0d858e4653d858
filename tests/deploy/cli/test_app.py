import errno
import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bibench_deploy.__main__ import main
from bibench_deploy.cli import app as module
from bibench_deploy.cli.app import app
from bibench_deploy.errors import DeployError
from bibench_train.errors import TrainError

COMMANDS = sorted(typer.main.get_command(app).commands)
HEAVY = (
    "torch,tensorflow,tf_keras,keras,onnx,onnxruntime,onnx_ir,onnxscript,larq,larq_compute_engine,"
    "matplotlib"
)


def test_the_version_is_printed(bibench) -> None:
    result = bibench("--version")
    assert (result.exit_code, result.stdout) == (0, f"bibench {version('bibench')}\n")


def test_without_a_command_help_is_shown(bibench) -> None:
    result = bibench()
    for name in COMMANDS:
        assert name in result.output


def test_commands_are_listed_in_the_order_of_the_pipeline(bibench) -> None:
    listed = [line.strip("│ ").split(" ")[0] for line in bibench("--help").stdout.splitlines()]
    order = ["demo", "train", "export", "lint", "profile", "report"]
    assert [name for name in listed if name in order] == order


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_needs_nothing_heavy(
    name, bibench_without
) -> None:
    done = bibench_without(HEAVY, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Example: bibench {name}" in " ".join(done.stdout.replace("│", " ").split())


def test_the_first_help_needs_nothing_heavy(bibench_without) -> None:
    done = bibench_without(HEAVY, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_a_short_form(option, bibench) -> None:
    assert bibench("lint", option).exit_code == 0


def test_the_installed_command_is_this_one() -> None:
    found = entry_points(group="console_scripts", name="bibench")
    assert [entry.load() for entry in found] == [main]


def test_an_interruption_while_it_is_loaded_is_one_line(tmp_path: Path) -> None:
    # Stands for the library whose import takes longest, and is interrupted in it.
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "bibench_deploy", "--version"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bibench: interrupted before it did anything\n"


@pytest.fixture
def raising(monkeypatch):
    """raising(error): the result of a command that raises it."""

    def run(error: BaseException):
        probe = typer.Typer(cls=module._OneLineErrors, pretty_exceptions_enable=False)

        @probe.callback()
        def main() -> None:
            """A command of its own."""

        @probe.command()
        def fail() -> None:
            raise error

        return CliRunner().invoke(probe, ["fail"])

    return run


@pytest.mark.parametrize("kind", [DeployError, TrainError])
def test_an_error_of_ours_is_one_line_on_stderr_and_exit_2(kind, raising) -> None:
    result = raising(kind("first line\n   second line"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "bibench: first line second line\n"


def test_ctrl_c_is_one_line_and_exit_2(raising) -> None:
    result = raising(KeyboardInterrupt())
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("bibench: interrupted; ")


def test_too_little_memory_is_one_line(raising) -> None:
    result = raising(MemoryError())
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "not enough memory" in line


def test_a_message_cannot_steer_the_terminal(raising) -> None:
    result = raising(DeployError("layer \x1b[2J\x07conv"))
    assert result.stderr == "bibench: layer ?[2J?conv\n"


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EISDIR,
     errno.EEXIST, errno.EPERM, errno.ENAMETOOLONG],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_one_line(number, raising) -> None:
    result = raising(OSError(number, os.strerror(number), "out/model.tflite"))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"bibench: cannot write out/model.tflite: {os.strerror(number)}; ")


def test_a_missing_package_is_one_line_with_the_command_that_adds_it(raising) -> None:
    result = raising(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith('run in a clone of bibench: python -m pip install ".[train]"')


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), OSError(errno.EIO, "input/output error"),
     ModuleNotFoundError("No module named 'bibench_deploy.typo'", name="bibench_deploy.typo")],
)  # fmt: skip
def test_a_bug_of_ours_shows_its_trace(error, raising) -> None:
    result = raising(error)
    assert result.exit_code == 1
    assert result.exception is error


def test_a_mistyped_command_is_exit_2_and_names_it(bibench) -> None:
    result = bibench("exprt")
    assert result.exit_code == 2
    assert "exprt" in result.stderr
