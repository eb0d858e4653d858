"""compare's second measurement, with the real interpreter on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bibench_deploy.artifact import Artifact
from bibench_deploy.cli.app import app
from bibench_deploy.profiling.journal import read_results
from bibench_deploy.profiling.presets import PRESETS, Preset
from bibench_deploy.profiling.session import profile_artifacts

MakeArtifact = Callable[..., Artifact]
NEW, AGAIN = Path("new.jsonl"), Path("new-again.jsonl")


@pytest.fixture(autouse=True)
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_lce_artifact: MakeArtifact) -> None:
    """new.jsonl is noisy for the load beside it; old.jsonl is the same sweep in a quiet hour."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.0, 0.1, 3, 0.0, 0.2))
    make_lce_artifact(Path("out/tiny"))
    profile_artifacts([Path("out/tiny")], "local", (1,), out=Path("swept.jsonl"))
    rewrite(Path("old.jsonl"), other_load=0.0)
    rewrite(NEW, other_load=0.5)


def rewrite(path: Path, *, other_load: float, **header: Any) -> None:
    """Write the sweep anew, with blocks that all took the same time."""
    lines = [json.loads(line) for line in Path("swept.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "block":
            line.update(other_load=other_load, samples_ms=[1.0] * 3, warmup_settled=True)
        elif line["kind"] == "header":
            line["environment"].update(header)
    kept = [line for line in lines if line["kind"] != "cell"]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def compare(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["compare", "old.jsonl", str(NEW), *arguments])


def test_noise_in_new_is_measured_once_more_where_all_is_at_hand() -> None:
    before = NEW.read_bytes()
    done = compare("--json")
    assert f"noise in 2 cells of {NEW}: once more, into {AGAIN}" in done.stderr
    assert NEW.read_bytes() == before
    again = read_results(AGAIN)
    assert again.problems == ()
    shown = {change["role"]: change["new"]["latency_ms"]["p50"]
             for change in json.loads(done.stdout)["latencies"]}  # fmt: skip
    measured = {again.artifacts[key.artifact].role: cell.latency_ms.p50
                for key, cell in again.cells.items()}  # fmt: skip
    assert shown == measured
    # It is there now, and nothing is written over it.
    assert f"not measured again: {AGAIN} is there already" in compare().stderr


def test_it_can_be_left_out() -> None:
    done = compare("--no-rerun")
    assert done.exit_code == 3
    assert done.stderr == ""
    assert not AGAIN.exists()


@pytest.mark.parametrize("what", ["another model", "no folder", "another machine"])
def test_what_is_not_at_hand_is_said_in_one_line(
    make_lce_artifact: MakeArtifact, what: str
) -> None:
    reason = "the folder out/tiny does not hold the model that was measured"
    if what == "another model":
        manifest = Path("out/tiny/manifest.json")
        text = manifest.read_text()
        sha256 = json.loads(text)["model_sha256"]
        manifest.write_text(text.replace(sha256, "0" * 64))
    elif what == "no folder":
        Path("out/tiny").rename("elsewhere")
    else:
        for name in ("old.jsonl", "new.jsonl"):
            rewrite(Path(name), other_load=0.5 if name == "new.jsonl" else 0.0, cores=99)
        reason = "device local is not the machine that was measured: cores 99, now "
    done = compare()
    assert done.exit_code == 3
    assert f"not measured again: {reason}" in done.stderr
    assert not AGAIN.exists()


def test_noise_in_old_is_no_reason_to_measure_new() -> None:
    rewrite(Path("old.jsonl"), other_load=0.5)
    done = compare()
    assert (done.exit_code, done.stderr) == (3, "")
