"""The contract: what every transport does, run over each one that is found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import open_transport, transport_names
from bibench_deploy.devices.transports._transport import Transport
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.errors import DeviceError, UnknownNameError

# Whatever a command line can hold: no NUL, and no half of a surrogate pair.
ARGUMENTS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        ["a b", "'", '"', ";", "$(touch x)", "`id`", "\n", "\\", "*", "-n", "~", "!"]
    ),
    max_size=5,
)


@pytest.fixture(params=transport_names())
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    # A device that a transport of another kind reaches needs its server started here.
    if request.param in ("ssh", "adb"):
        server = request.getfixturevalue({"ssh": "sshd", "adb": "adbd"}[request.param])
        device = server.device(tmp_path / "work folder", python=sys.executable)
    else:
        device = Device("board", "a board", request.param, {"python": sys.executable})
    with open_transport(device) as opened:
        yield opened


def script(
    transport: Transport, stdout: str = "", stderr: str = "", exit_code: int = 0, takes_s: float = 0
) -> None:
    """Tell the fake what a real device finds out by itself."""
    if isinstance(transport, FakeTransport):
        transport.answer(stdout, stderr=stderr, exit_code=exit_code, takes_s=takes_s)


def test_a_command_gives_its_output_and_exit_code_0(transport: Transport) -> None:
    program = "import sys; print('to out'); print('to err', file=sys.stderr)"
    script(transport, "to out\n", "to err\n")
    result = transport.run([transport.python, "-c", program], timeout_s=30)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "to out\n", "to err\n")


def test_a_command_that_fails_keeps_its_exit_code_and_stderr(transport: Transport) -> None:
    script(transport, stderr="no such model", exit_code=3)
    program = "import sys; sys.stderr.write('no such model'); sys.exit(3)"
    result = transport.run([transport.python, "-c", program], timeout_s=30)
    assert (result.exit_code, result.stderr) == (3, "no such model")


def test_a_command_ended_by_a_signal_has_a_negative_exit_code(transport: Transport) -> None:
    script(transport, exit_code=-4)
    program = "import os; os.kill(os.getpid(), 4)"  # an illegal instruction
    assert transport.run([transport.python, "-c", program], timeout_s=30).exit_code == -4


def test_a_program_that_does_not_exist_cannot_be_started(transport: Transport) -> None:
    if isinstance(transport, FakeTransport):
        transport.fail(DeviceError("device board: cannot start no-such-program: scripted"))
    with pytest.raises(DeviceError, match="device board: cannot start no-such-program: "):
        transport.run(["no-such-program"], timeout_s=30)


def test_arguments_reach_the_command_as_they_are(transport: Transport) -> None:
    arguments = ["two words", "'quoted\"", "$(id)", ";", "*", "line\nbreak", "", "ß"]
    program = "import sys; sys.stdout.reconfigure(encoding='utf-8'); print(sys.argv[1:])"
    script(transport, f"{arguments}\n")
    result = transport.run([transport.python, "-c", program, *arguments], timeout_s=30)
    assert result.stdout == f"{arguments}\n"


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(arguments=ARGUMENTS)
def test_no_shell_reads_an_argument(transport: Transport, arguments: list[str]) -> None:
    expected = "".join(f"[{argument}]" for argument in arguments) if arguments else "[]"
    script(transport, expected)
    result = transport.run(["printf", "[%s]", *arguments], timeout_s=30)
    assert (result.exit_code, result.stdout) == (0, expected)


def test_a_command_that_takes_too_long_is_an_error_that_names_it(transport: Transport) -> None:
    script(transport, takes_s=60)
    with pytest.raises(DeviceError, match=r"device board: not finished after 0\.3 s.*sleep"):
        transport.run([transport.python, "-c", "import time; time.sleep(60)"], timeout_s=0.3)


def test_more_output_than_a_pipe_holds_is_read_whole(transport: Transport) -> None:
    script(transport, "x" * 1_000_000 + "\n")
    result = transport.run([transport.python, "-c", "print('x' * 1_000_000)"], timeout_s=60)
    assert len(result.stdout) == 1_000_001


@pytest.mark.parametrize("name", ["model file.tflite", "$(touch x);'\"\n.onnx"])
def test_a_file_comes_back_as_it_was_pushed(
    transport: Transport, tmp_path: Path, name: str
) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / name).write_bytes(content)
    path = transport.push(tmp_path / name)
    transport.pull(path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_files_that_are_pushed_together_keep_apart(transport: Transport, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    paths = transport.push_all([tmp_path / "a", tmp_path / "b"])
    transport.check_pushed(list(paths.values()))
    for name in ("a", "b"):
        transport.pull(paths[tmp_path / name], tmp_path / "back")
        assert (tmp_path / "back").read_text() == name


def test_pushing_a_file_that_is_not_there_is_an_error(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"none\.tflite"):
        transport.push(tmp_path / "none.tflite")


def test_pulling_a_file_that_is_not_there_is_an_error(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="/no/such/file"):
        transport.pull("/no/such/file", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_holding_the_device_and_cleaning_it_leave_it_usable(transport: Transport) -> None:
    with transport.hold():
        script(transport, "held\n")
        assert transport.run(["echo", "held"], timeout_s=30).stdout == "held\n"
    assert transport.clean() == (0, 0)
    script(transport, "still here\n")
    assert transport.run(["echo", "still here"], timeout_s=30).stdout == "still here\n"


def test_closing_twice_does_nothing(transport: Transport) -> None:
    transport.close()
    transport.close()


def test_a_device_without_a_transport_says_how_to_add_one() -> None:
    with pytest.raises(DeviceError, match="run: bibench devices add pi4 --ssh USER@HOST"):
        open_transport(Device("pi4", "Raspberry Pi 4B", None))


def test_an_unknown_transport_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match='unknown transport "locl"'):
        open_transport(Device("pi4", "Raspberry Pi 4B", "locl"))


def test_every_transport_has_its_row_in_the_documentation() -> None:
    text = (Path(__file__).parents[4] / "docs" / "transports.md").read_text(encoding="utf-8")
    for name in transport_names():
        assert f"| [`{name}`](../bibench_deploy/devices/transports/{name}.py) |" in text
