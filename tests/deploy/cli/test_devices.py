from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.cli.devices import _print_check
from bibench_deploy.devices.connections import connections_file
from bibench_deploy.devices.registry import Device
from bibench_deploy.profiling.environment import Environment

CHIPS = [
    "kirin970", "kirin980", "kirin985", "kirin990", "kirin9000e", "dimensity820", "dimensity9000",
    "snapdragon855plus", "snapdragon870", "snapdragon888", "pi3", "pi4", "m1", "m1max",
]  # fmt: skip


@pytest.fixture(autouse=True)
def settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def test_the_fourteen_chips_of_the_benchmark_are_known_with_their_source(bibench) -> None:
    listed = json.loads(bibench("devices", "list", "--json").stdout)
    assert [device["name"] for device in listed] == ["local", *CHIPS]
    for device in listed[1:]:
        assert device["transport"] is None
        assert device["architecture"] in ("aarch64", "arm64")
        assert sum(cluster["cores"] for cluster in device["clusters"]) in (4, 8, 10)
        assert device["threads"][:4] == [1, 2, 4, 8]
        assert device["source"]


def test_a_list_for_people_has_a_row_for_each(bibench) -> None:
    lines = bibench("devices", "list").stdout.splitlines()
    assert lines[0].split() == ["name", "device", "reached", "by"]
    assert len(lines) == 16


def test_what_is_known_of_a_chip_is_shown(bibench) -> None:
    shown = bibench("devices", "show", "kirin990")
    assert shown.exit_code == 0
    assert "4 × Cortex-A55 at 1860 MHz, 2 × Cortex-A76 at 2088 MHz" in shown.stdout
    assert "https://en.wikichip.org" in shown.stdout
    assert json.loads(bibench("devices", "show", "pi4", "--json").stdout)["title"] == (
        "Raspberry Pi 4B"
    )


def test_a_device_is_added_and_shown_without_being_asked(bibench) -> None:
    added = bibench("devices", "add", "kirin990", "--adb", "0123ABC", "--title", "the phone")
    assert (added.exit_code, added.stdout) == (0, "")
    assert f"kirin990 (the phone) is reached by adb 0123ABC: {connections_file()}" in added.stderr
    assert "bibench devices check kirin990" in added.stderr
    assert "adb 0123ABC" in bibench("devices", "show", "kirin990").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "pi4"], "in one way: --ssh USER@HOST or --adb SERIAL"),
        (["add", "pi4", "--ssh", "a", "--adb", "b"], "in one way"),
        (["add", "pi4", "--ssh", "pi@"], '"pi@" is no ssh address; write USER@HOST'),
        (["add", "pi4", "--adb", ""], "--adb '' is no serial"),
        (["add", "pi4", "--adb", "a b"], "is no serial"),
        (["add", "pi4", "--adb", "a", "--ssh-config", "f"], "--ssh-config is for --ssh"),
        (["add", "pi4", "--ssh", "a", "--python", ""], "--python '' is no path"),
        (["add", "pi4", "--ssh", "a", "--work-folder", "a\nb"], "--work-folder 'a\\nb' is no path"),
        (["add", "local", "--ssh", "a"], '"local" cannot be the name of a device'),
        (["show", "pi5"], 'unknown device "pi5" (did you mean "pi'),
        (["check", "pi5"], 'unknown device "pi5"'),
        (["clean", "pi5"], 'unknown device "pi5"'),
        (["chekc"], "No such command 'chekc'"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    bibench: Callable[..., object], arguments: list[str], told: str
) -> None:
    done = bibench("devices", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert told in done.stderr
    assert not connections_file().exists()


def test_this_machine_is_checked(bibench) -> None:
    done = bibench("devices", "check")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("local: this machine, by local\n")
    [found] = json.loads(bibench("devices", "check", "local", "--json").stdout)
    assert {one["runner"] for one in found["runtimes"]} >= {"lce", "lce_benchmark_model", "onnx"}
    assert found["environment"]["python"]


def test_this_machine_has_nothing_to_clean(bibench) -> None:
    assert bibench("devices", "clean", "local").stdout == "local: 0 files removed, 0.0 MB\n"


def test_without_a_command_the_help_is_shown_and_nothing_else(bibench) -> None:
    done = bibench("devices")
    assert done.exit_code == 2
    assert "check" in done.output
    assert "see bibench devices" not in done.output


@pytest.mark.parametrize(
    ("reach", "packages", "extra"),
    [("--ssh", "fabric,paramiko", ".[ssh]"), ("--adb", "adbutils", ".[adb]")],
)
def test_a_transport_that_is_not_installed_names_the_extra_that_brings_it(
    bibench, bibench_without, reach: str, packages: str, extra: str
) -> None:
    assert bibench("devices", "add", "pi4", reach, "somewhere").exit_code == 0
    done = bibench_without(packages, "devices", "check", "pi4")
    assert (done.returncode, done.stdout) == (2, "")
    assert f'python -m pip install "{extra}"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("value", ["4", "[4]", '"four"', "[{ cores = 'four' }]", "[]"])
def test_clusters_that_a_user_wrote_otherwise_are_shown_as_they_are(
    bibench, tmp_path: Path, value: str
) -> None:
    (tmp_path / "devices.toml").write_text(f'[mine]\ntransport = "local"\nclusters = {value}\n')
    assert bibench("devices", "show", "mine").exit_code == 0
    assert bibench("devices", "check", "mine").exit_code == 0


@pytest.mark.parametrize("command", ["check", "clean"])
def test_the_reason_why_a_device_fails_cannot_steer_the_terminal(bibench, command: str) -> None:
    words = ("add", "pi4", "--ssh", "a", "--ssh-config", "/no/\x1b[31m")
    assert bibench("devices", *words).exit_code == 0
    done = bibench("devices", command, "pi4")
    assert done.exit_code == 2
    assert done.stderr == "bibench: device pi4: no file /no/?[31m, its ssh_config\n"


def test_a_disk_that_is_full_and_a_clock_that_is_right_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Environment(machine="aarch64", free_mib=0, clock_skew_s=0)
    runtimes: list[dict[str, str | None]] = [{"runner": "onnx", "obstacle": None}]
    _print_check(Device("pi4", "a board", "ssh", {"host": "pi"}), found, runtimes)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"free space 0 MiB", "clock skew 0 s"} <= set(lines)
