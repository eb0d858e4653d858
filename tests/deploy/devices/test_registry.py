from __future__ import annotations

from pathlib import Path

import pytest

from bibench_deploy.devices.registry import Device, find_device, load_devices, read_devices
from bibench_deploy.errors import DeviceError, UnknownNameError


def write(folder: Path, text: str, name: str = "devices.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_local_exists_even_when_no_file_names_it(tmp_path: Path) -> None:
    assert read_devices([tmp_path / "none.toml"]) == {
        "local": Device("local", "this machine", "local")
    }


def test_the_packaged_file_names_local() -> None:
    assert load_devices()["local"].transport == "local"


def test_a_devices_toml_in_the_current_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, '[bench]\ntitle = "a test bench"\ntransport = "fake"\n')
    monkeypatch.chdir(tmp_path)
    assert find_device("bench") == Device("bench", "a test bench", "fake")


def test_a_later_file_changes_single_keys_of_a_device(tmp_path: Path) -> None:
    first = write(tmp_path, '[pi4]\ntitle = "Raspberry Pi 4B"\ncores = 4\n', "1.toml")
    second = write(tmp_path, '[pi4]\ntransport = "fake"\ncores = 2\n', "2.toml")
    pi4 = read_devices([first, second])["pi4"]
    assert (pi4.title, pi4.transport, dict(pi4.facts)) == ("Raspberry Pi 4B", "fake", {"cores": 2})


def test_a_device_may_be_known_without_a_way_to_reach_it(tmp_path: Path) -> None:
    pi4 = read_devices([write(tmp_path, '[pi4]\ntitle = "Raspberry Pi 4B"\n')])["pi4"]
    assert pi4.transport is None


def test_facts_cannot_be_changed(tmp_path: Path) -> None:
    facts = read_devices([write(tmp_path, "[pi4]\ncores = 4\n")])["pi4"].facts
    with pytest.raises(TypeError):
        facts["cores"] = 8


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r'unknown device "locl".*did you mean "local"'):
        find_device("locl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[pi4]\ntitle = "ok"\ncores = = 4\n', "devices.toml, line 3: no valid TOML"),
        ("[pi4]\n[pi4]\n", 'devices.toml, line 2: no valid TOML: Key "pi4"'),
        ("cores = 4\n", "devices.toml: cores stands in no table"),
        ("[pi4]\ntitle = 4\n", r"devices.toml \[pi4\]: title must be a text"),
        (
            '[pi4]\ntransport = "sssh"\n',
            r'devices.toml \[pi4\]: unknown transport "sssh"; one of: adb, fake, local, ssh',
        ),
        ("[pi4]\ntransport = 4\n", r'devices.toml \[pi4\]: unknown transport "4"'),
    ],
)
def test_a_damaged_file_is_one_error_that_names_the_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        read_devices([write(tmp_path, text)])
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DeviceError, match=r"devices\.toml: no valid TOML"):
        read_devices([tmp_path / "devices.toml"])
