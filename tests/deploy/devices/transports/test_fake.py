from __future__ import annotations

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.errors import DeviceError


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport(Device("board", "a board", "fake"))


def test_answers_come_in_the_order_in_which_they_were_given(transport: FakeTransport) -> None:
    transport.answer("first")
    transport.answer("second", exit_code=4)
    assert transport.run(["a"], timeout_s=1).stdout == "first"
    assert transport.run(["b"], timeout_s=1).exit_code == 4
    assert transport.commands == [["a"], ["b"]]


def test_a_broken_link_can_be_scripted(transport: FakeTransport) -> None:
    transport.fail(DeviceError("device board: link lost"))
    with pytest.raises(DeviceError, match="link lost"):
        transport.run(["a"], timeout_s=1)


def test_a_command_without_an_answer_is_a_gap_in_the_test(transport: FakeTransport) -> None:
    with pytest.raises(LookupError, match=r"no answer scripted for command \['a', 'b'\]"):
        transport.run(["a", "b"], timeout_s=1)
