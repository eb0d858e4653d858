from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from bibench_deploy.cli.report import report
from bibench_deploy.errors import ResultsError, SourceError, UnknownNameError

app = typer.Typer(rich_markup_mode="rich")
app.command()(report)

RUNTIME = {"name": "lce", "version": "0.16.0", "binary_kernel": "indirect BGEMM"}

RECORDS = [
    {
        "kind": "header",
        "schema_version": 1,
        "run": "run",
        "bibench_version": "0.1.0",
        "command": ["bibench", "profile"],
        "preset": "quick",
        "seed": 0,
        "started_at": "2026-01-02T03:04:05+00:00",
        "environment": {"machine": "x86_64"},
        "planned": [],
    },
    {
        "kind": "artifact",
        "artifact": "0123456789ab",
        "path": "out/m",
        "twin": None,
        "manifest": {
            "name": "resnet20-reactnet-digits",
            "target": "lce",
            "role": "model",
            "source": {"architecture": "resnet20", "algorithm": "reactnet", "trained": True},
            "input": {"shape": [1, 32, 32, 3], "layout": "NHWC"},
            "model_sha256": "0" * 64,
            "size_bytes": 61312,
            "layers": [],
            "verification": {"residency": {"intended": 18, "resident": 18}, "parity": None},
            "findings": [],
        },
    },
    {
        "kind": "block",
        "artifact": "0123456789ab",
        "device": "local",
        "threads": 1,
        "block": 0,
        "runtime": RUNTIME,
        "samples_ms": [2.0, 2.1],
        "warmup_count": 1,
        "warmup_settled": True,
        "other_load": None,
        "init_ms": 1.0,
        "peak_memory_mib": None,
        "note": None,
    },
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(word) for word in arguments])


def write(path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return path


def test_text_is_printed_unless_a_format_is_named(run, tmp_path):
    result = run(write(tmp_path / "a.jsonl"))
    assert result.exit_code == 0
    assert result.stdout.startswith("resnet20 reactnet takes 61.3 kB")


def test_json_is_all_there_is_on_stdout(run, tmp_path):
    write(tmp_path / "results" / "a.jsonl")
    result = run("--format", "json")
    assert json.loads(result.stdout)["kind"] == "bibench-report"


def test_the_newest_results_are_taken_and_named_on_stderr(run, tmp_path):
    old = write(tmp_path / "results" / "z.jsonl")
    os.utime(old, (1, 1))
    write(tmp_path / "results" / "a.jsonl")
    result = run()
    assert "report of results/a.jsonl" in result.stderr
    assert "report of" not in result.stdout


def test_out_writes_what_the_file_name_says_and_makes_the_folder(run, tmp_path):
    result = run(write(tmp_path / "a.jsonl"), "--out", "new/report.html")
    assert result.stdout == ""
    assert "wrote new/report.html" in result.stderr
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8").startswith("<!doctype")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_a_named_format_wins_over_the_file_name(run, tmp_path):
    run(write(tmp_path / "a.jsonl"), "--format", "json", "--out", "report.html")
    assert json.loads((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_an_unknown_format_is_named(run, tmp_path):
    result = run(write(tmp_path / "a.jsonl"), "--format", "pdf")
    assert isinstance(result.exception, UnknownNameError)


def test_a_missing_file_is_named(run):
    result = run("results/none.jsonl")
    assert isinstance(result.exception, SourceError)
    assert "results/none.jsonl does not exist" in str(result.exception)


def test_a_folder_is_no_results_file(run, tmp_path):
    result = run(tmp_path)
    assert isinstance(result.exception, SourceError)
    assert "is a folder" in str(result.exception)


def test_no_results_at_all_says_how_to_get_some(run):
    result = run()
    assert isinstance(result.exception, SourceError)
    assert "run bibench profile" in str(result.exception)


def test_a_damaged_file_is_named_with_its_line(run, tmp_path):
    path = write(tmp_path / "a.jsonl")
    path.write_text(path.read_text(encoding="utf-8") + "{nonsense}\n", encoding="utf-8")
    result = run(path)
    assert isinstance(result.exception, ResultsError)
    assert "a.jsonl, line 4" in str(result.exception)


def test_help_has_an_example(run):
    assert "bibench report results/run.jsonl --format html" in " ".join(
        run("--help").stdout.split()
    )


def test_the_module_imports_nothing_heavy():
    code = (
        "import sys, bibench_deploy.cli.report\n"
        "heavy = {'matplotlib', 'jinja2', 'numpy', 'torch', 'tensorflow', 'onnx'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["text", "json", "md"])
def test_text_formats_import_neither_matplotlib_nor_jinja(tmp_path, name):
    path = write(tmp_path / "a.jsonl")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bibench_deploy.reports import build_report, render\n"
        f"render(build_report([Path({str(path)!r})]), {name!r})\n"
        "heavy = {'matplotlib', 'jinja2', 'torch', 'tensorflow', 'onnxruntime'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_papers_own_figures_need_no_results(run):
    result = run("--paper")
    assert result.exit_code == 0
    assert "The hardware track of BiBench, as published" in result.stdout


def test_the_papers_own_figures_take_no_results(run, tmp_path):
    result = run("--paper", write(tmp_path / "a.jsonl"))
    assert result.exit_code == 2
    assert "--paper takes no results" in result.stderr
