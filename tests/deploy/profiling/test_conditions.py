"""watch.sh against a folder that stands for /sys, and what becomes of its lines."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device
from bibench_deploy.devices.transports.local import LocalTransport
from bibench_deploy.profiling import conditions
from bibench_deploy.profiling.conditions import (
    Conditions,
    Reading,
    Watch,
    clock_fall,
    held_back,
    other_load,
    parse_reading,
    summarize_readings,
    watched,
)

SCRIPT = Path(conditions.__file__).with_name("watch.sh").read_text()


@pytest.fixture
def sys_folder(tmp_path: Path) -> Path:
    """Two sensors of a processor, one of a battery that is hotter, and two cores."""
    sensors = {"cpu-thermal": "51200", "cpu1": "bad\n52400", "soc_max": "53100", "battery": "90000"}
    for number, (name, temperature) in enumerate(sensors.items()):
        zone = tmp_path / f"class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{temperature}\n")
    for number, khz in enumerate(("600000", "1500000")):
        folder = tmp_path / f"devices/system/cpu/cpu{number}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    return tmp_path


def first_line(shell: str, sys_folder: Path, path: str = "/usr/bin:/bin") -> str:
    command = [shell, "-c", SCRIPT, "bibench", "60", str(sys_folder), "/proc"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PATH": path}, start_new_session=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
        subprocess.run(["pkill", "-s", str(process.pid)], check=False)
    return line


@pytest.mark.parametrize("shell", ["dash", "bash", "mksh"])
def test_a_line_has_the_hottest_of_the_processor_and_each_clock(
    shell: str, sys_folder: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.fail(f"this test needs {shell}; run: apt-get install {shell}")
    reading = parse_reading(first_line(shell, sys_folder), 1.0)
    assert reading is not None
    assert (reading.temperature_c, reading.clocks_mhz) == (53.1, {0: 600, 1: 1500})
    assert reading.busy
    assert reading.idle
    assert reading.flags is None


def test_the_firmware_of_a_raspberry_pi_is_asked(sys_folder: Path) -> None:
    tool = sys_folder / "vcgencmd"
    tool.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005\n')
    tool.chmod(0o755)
    reading = parse_reading(first_line("sh", sys_folder, f"{sys_folder}:/usr/bin:/bin"), 1.0)
    assert reading is not None
    assert reading.flags == 0x50005


def test_a_device_that_shows_nothing_has_no_conditions(tmp_path: Path) -> None:
    reading = parse_reading(first_line("sh", tmp_path), 1.0)
    assert reading is not None
    assert (reading.temperature_c, reading.clocks_mhz, reading.flags) == (None, {}, None)
    assert parse_reading("sh: not found", 1.0) is None
    assert summarize_readings([], [], None, 4) is None


def reading(at_s: float, busy: int = 0, idle: int = 0, **shown: object) -> Reading:
    fields = {"temperature_c": None, "clocks_mhz": {}, "flags": None} | shown
    return Reading(at_s=at_s, busy=busy, idle=idle, **fields)


def test_a_block_keeps_the_hottest_moment_and_the_usual_clock_of_its_cores() -> None:
    heard = [
        reading(1, 100, 300, temperature_c=50.0, clocks_mhz={0: 600, 4: 2400}, flags=0),
        reading(2, 200, 600, temperature_c=62.5, clocks_mhz={0: 900, 4: 1800}, flags=4),
        reading(3, 300, 900, temperature_c=61.0, clocks_mhz={0: 800, 4: 2000}),
    ]
    assert summarize_readings(heard, [], None, 8) == Conditions(62.5, 2000, 2.0, 4)
    assert summarize_readings(heard, [], (0, 1), 8) == Conditions(62.5, 800, 2.0, 4)


def test_flags_of_now_hold_a_cell_back_and_those_of_the_past_do_not() -> None:
    assert held_back([Conditions(flags=0x50000), Conditions()]) is None
    assert held_back([Conditions(flags=0x50005)]) == (
        "the firmware reported: under-voltage, throttled"
    )


def test_a_clock_that_fell_is_said_in_numbers() -> None:
    clocks = [Conditions(clock_mhz=mhz) for mhz in (2400, 2300, 1800)]
    assert clock_fall(clocks) == "the clock fell from 2400 to 1800 MHz"
    assert clock_fall(clocks[::-1]) is None
    assert clock_fall(clocks[:2]) is None


def test_what_others_used_is_what_was_busy_less_the_threads() -> None:
    assert other_load(Conditions(busy_cores=2.5), 2, 4) == 0.125
    assert other_load(Conditions(busy_cores=1.9), 2, 4) == 0.0
    assert other_load(None, 2, 4) is None


@pytest.mark.parametrize(
    "line",
    [
        "t=² c=²:1,0:² b=² i=² f=²",
        f"t={'9' * 400} c={'9' * 400}:1 b={'9' * 5000} i=x f=0x{'f' * 99}",
    ],
)
def test_numbers_that_are_none_count_as_not_shown(line: str) -> None:
    assert parse_reading(line, 1.0) == Reading(1.0, None, {}, None, None, None)


def test_a_watch_gives_each_block_its_own_readings() -> None:
    watch = Watch(None, 2)
    watch.hear("t=50000 c= b=10 i=10 f=")
    watch.hear("no line of the script")
    begun_at_s = time.monotonic() + 10
    assert watch.since(begun_at_s) is None
    first = watch.since(0.0)
    assert first is not None
    assert first.temperature_c == 50.0


def test_it_runs_beside_a_sweep_and_ends_with_it() -> None:
    with (
        LocalTransport(Device("local", "here", "local")) as transport,
        watched(transport, None, 2) as watch,
    ):
        begun_at_s, deadline = time.monotonic(), time.monotonic() + 20
        while (found := watch.since(begun_at_s)) is None or found.busy_cores is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "get_throttled" not in listed.stdout
