from __future__ import annotations

import pytest

from bibench_deploy.errors import DeviceError
from bibench_deploy.profiling.affinity import choose_cores, ranges, taskset
from bibench_deploy.profiling.environment import Cluster, Environment

PHONE = Environment(
    system="Android",
    clusters=(
        Cluster(4, 1800, "0xd05", (0, 1, 2, 3)),
        Cluster(3, 2400, "0xd0d", (4, 5, 6)),
        Cluster(1, 2840, "0xd0d", (7,)),
    ),
    has_taskset=True,
)
ALIKE = Environment(clusters=(Cluster(4, 1500, "0xd08", (0, 1, 2, 3)),), has_taskset=True)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("little", (0, 1, 2, 3)),
        ("big", (4, 5, 6, 7)),
        ("7", (7,)),
        ("0-2", (0, 1, 2)),
        ("4, 0,4-5", (0, 4, 5)),
    ],
)
def test_cores_are_named_by_cluster_or_number(text: str, cores: tuple[int, ...]) -> None:
    assert choose_cores(text, PHONE, "kirin990", (1,)) == cores


@pytest.mark.parametrize(
    ("text", "environment", "threads", "message"),
    [
        ("", PHONE, 1, "--cpus : write big, little, or numbers such as 0-3 or 0,2"),
        ("fast", PHONE, 1, "--cpus fast: write big, little, or numbers"),
        ("-1", PHONE, 1, "write big, little, or numbers"),
        ("0,", PHONE, 1, "write big, little, or numbers"),
        ("3-1", PHONE, 1, "3-1 is no range of cores"),
        ("0-9999", PHONE, 1, "0-9999 is no range of cores"),
        ("6-8", PHONE, 1, "it has no core 8; it has 0-7"),
        ("big", ALIKE, 1, "no cores of different clocks; name cores by number, such as 0-1"),
        ("0-1", ALIKE, 4, "4 threads do not fit on 2 cores; give fewer --threads or more --cpus"),
        ("0", Environment(system="Darwin"), 1, "no taskset, .* (macOS has no such thing); leave"),
        ("0", Environment(), 1, "it has no taskset"),
    ],
)
def test_what_a_device_has_not_is_refused_in_one_line(
    text: str, environment: Environment, threads: int, message: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_cores(text, environment, "pi4", (1, threads))
    assert str(caught.value).startswith(f"device pi4: --cpus {text}: ")
    for part in message.split(" .* "):
        assert part in str(caught.value)


def test_the_mask_is_what_util_linux_and_toybox_read() -> None:
    assert taskset((0, 1, 2, 3)) == ["taskset", "f"]
    assert taskset((4, 5, 6, 7)) == ["taskset", "f0"]
    assert ranges((0, 2, 3, 4, 7)) == "0,2-4,7"
