from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

AARCH64 = b"\x7fELF\x02" + bytes(13) + b"\xb7\x00"


@pytest.fixture(autouse=True)
def settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_without_a_file_the_asset_to_get_is_named(bibench) -> None:
    done = bibench("runtimes", "add", "lce", "--abi", "aarch64")
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        "lce_benchmark_model_aarch64 of https://github.com/larq/compute-engine/rel" in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_program_is_kept_and_listed_by_its_hash(bibench, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(AARCH64)
    done = bibench("runtimes", "add", "lce", "--abi", "aarch64", tmp_path / "program")
    sha256 = hashlib.sha256(AARCH64).hexdigest()
    assert done.exit_code == 0
    assert f"lce for aarch64: sha256 {sha256}" in done.stderr
    rows = json.loads(bibench("runtimes", "list", "--json").stdout)
    kept = {row["abi"]: row["sha256"] for row in rows if row["name"] == "lce"}
    assert kept == {"aarch64": sha256, "aarch32": None, "android-arm64": None}
    assert f"kept, sha256 {sha256[:12]}" in bibench("runtimes", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "lcee", "--abi", "aarch64"], 'unknown runtime "lcee" (did you mean "lce"?)'),
        (["add", "lce", "--abi", "arm"], 'unknown ABI "arm"'),
        (["add", "lce"], "Missing option '--abi'"),
        (["add", "lce", "--abi", "aarch64", "none"], "none: cannot be kept: No such file"),
        (["add", "lce", "--abi", "aarch64", "."], ".: cannot be kept: Is a directory"),
    ],
)
def test_a_mistake_is_one_line(bibench, arguments: list[str], told: str) -> None:
    done = bibench("runtimes", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert told in done.stderr
