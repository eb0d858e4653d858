"""The contract: what every transport does, run over each one that is found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports import open_transport, transport_names
from bibench_deploy.devices.transports._transport import Transport
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.errors import DeviceError, UnknownNameError


@pytest.fixture(params=transport_names())
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    # A device that a transport of another kind reaches needs its server started here.
    facts = {"python": sys.executable}
    with open_transport(Device("board", "a board", request.param, facts)) as opened:
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


def test_arguments_reach_the_command_as_they_are(transport: Transport) -> None:
    arguments = ["two words", "'quoted\"", "$(id)", ";", "*", "line\nbreak", "", "ß"]
    program = "import sys; sys.stdout.reconfigure(encoding='utf-8'); print(sys.argv[1:])"
    script(transport, f"{arguments}\n")
    result = transport.run([transport.python, "-c", program, *arguments], timeout_s=30)
    assert result.stdout == f"{arguments}\n"


def test_a_command_that_takes_too_long_is_an_error_that_names_it(transport: Transport) -> None:
    script(transport, takes_s=60)
    with pytest.raises(DeviceError, match=r"device board: not finished after 0\.3 s.*sleep"):
        transport.run([transport.python, "-c", "import time; time.sleep(60)"], timeout_s=0.3)


def test_a_file_comes_back_as_it_was_pushed(transport: Transport, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / "model file.tflite").write_bytes(content)
    path = transport.push(tmp_path / "model file.tflite")
    transport.pull(path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_pushing_a_file_that_is_not_there_is_an_error(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"none\.tflite"):
        transport.push(tmp_path / "none.tflite")


def test_pulling_a_file_that_is_not_there_is_an_error(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="/no/such/file"):
        transport.pull("/no/such/file", tmp_path / "back")


def test_closing_twice_does_nothing(transport: Transport) -> None:
    transport.close()
    transport.close()


def test_a_device_without_a_transport_says_where_to_name_one() -> None:
    with pytest.raises(DeviceError, match=r"\[pi4\] a transport in \./devices\.toml"):
        open_transport(Device("pi4", "Raspberry Pi 4B", None))


def test_an_unknown_transport_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match='unknown transport "locl"'):
        open_transport(Device("pi4", "Raspberry Pi 4B", "locl"))


def test_every_transport_has_its_row_in_the_documentation() -> None:
    text = (Path(__file__).parents[4] / "docs" / "transports.md").read_text(encoding="utf-8")
    for name in transport_names():
        assert f"| [`{name}`](../bibench_deploy/devices/transports/{name}.py) |" in text
