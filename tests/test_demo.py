"""The whole path as a newcomer runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIBENCH = Path(sys.executable).with_name("bibench")


@pytest.mark.slow
def test_the_demo_trains_exports_proves_profiles_and_reports(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIBENCH, "demo", "--out", "demo"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "demo/report.json").read_text())
    assert report["accuracy"]["reactnet"] >= 95
    assert report["accuracy"]["fp32"] >= 95
    models = {
        (model["title"], model["target"]): model
        for model in report["models"]
        if model["role"] == "model"
    }
    binarized = ("resnet20 reactnet", "resnet18 reactnet")
    assert set(models) == {("resnet20 fp32", "lce")} | {
        (f"{title} {target}", target) for title in binarized for target in ("lce", "native")
    }
    binary = models["resnet20 reactnet lce", "lce"]
    assert binary["residency"]["resident"] == binary["residency"]["intended"] == 18
    assert binary["size_ratio"] > 10
    assert binary["held_out"]["same_answers"] == binary["held_out"]["images"] == 360
    for model in models.values():
        assert model["findings"] == []
        assert model["parity"]["max_abs_error"] is not None
        assert sorted(cell["threads"] for cell in model["cells"]) == [1, 2]
        assert all(cell["latency_ms"]["p50"] > 0 for cell in model["cells"])
        assert not model["parity"]["unexplained_flips"]
    assert models["resnet18 reactnet native", "native"]["trained"] is False
    page = (tmp_path / "demo/report.html").read_text()
    assert "a host check, not a board result" in page or not report["is_host_check"]
    assert str(tmp_path) not in page
    again = subprocess.run(
        [BIBENCH, "demo", "--out", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert "no demo made it" in again.stderr
