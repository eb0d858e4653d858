"""What is promised without torch and TensorFlow: lint, profile and report from a wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with bibench[profile] and nothing more."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    programs = folder / "bin"
    # No --editable: the wheel itself must hold all that is needed.
    command = [programs / "python", "-m", "pip", "install", "--quiet", f"{ROOT}[profile]"]
    subprocess.run(command, check=True, capture_output=True)
    return programs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact made by the full environment from the shipped network."""
    out = tmp_path_factory.mktemp("exported") / "net"
    command = [Path(sys.executable).with_name("bibench"), "export"]
    source = "models/digits-resnet20-reactnet"
    subprocess.run([*command, source, "--out", out], check=True, capture_output=True, cwd=ROOT)
    return out


def run(programs: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [programs / "bibench", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_neither_torch_nor_tensorflow_is_installed(bare: Path) -> None:
    listed = subprocess.run(
        [bare / "python", "-m", "pip", "list", "--format", "json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert "bibench" in names
    assert not names & {"torch", "tensorflow", "tf-keras", "tf_keras", "larq", "matplotlib"}


@pytest.mark.slow
def test_lint_reads_an_onnx_file(bare: Path, exported: Path, tmp_path: Path) -> None:
    done = run(bare, tmp_path, "lint", exported / "model.onnx", "--target", "lce")
    assert (done.returncode, done.stderr) == (0, "")
    assert "18 binary layers, 0 errors, 0 warnings" in done.stdout


@pytest.mark.slow
def test_profile_and_report_work(bare: Path, exported: Path, tmp_path: Path) -> None:
    results = tmp_path / "run.jsonl"
    done = run(bare, tmp_path, "profile", exported, "--threads", "1", "--out", results, "--json")
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["latency_ms"]["p50"] > 0
    report = run(bare, tmp_path, "report", results, "--format", "md")
    assert report.returncode == 0, report.stderr
    assert "reactnet" in report.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["export", "model.onnx"], ".[lce]"),
        (["train"], ".[train]"),
        (["lint", "network:make", "--input-shape", "1,3,8,8"], ".[train]"),
    ],
)
def test_what_is_not_installed_is_named(
    bare: Path, exported: Path, tmp_path: Path, arguments: list[str], extra: str
) -> None:
    (tmp_path / "model.onnx").write_bytes((exported / "model.onnx").read_bytes())
    done = run(bare, tmp_path, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert extra in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_html_asks_for_the_plots_extra(bare: Path, exported: Path, tmp_path: Path) -> None:
    results = tmp_path / "run.jsonl"
    run(bare, tmp_path, "profile", exported, "--threads", "1", "--out", results)
    done = run(bare, tmp_path, "report", results, "--format", "html", "--out", "report.html")
    assert done.returncode == 2
    assert ".[plots]" in done.stderr
    assert not (tmp_path / "report.html").exists()
