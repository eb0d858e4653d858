from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bibench_deploy.cli.app import app


def lines(p50_ms, *, load=0.01, size_bytes=1000, name="net"):
    key = {"artifact": "aaaa", "device": "pi4", "threads": 1}
    yield {
        "kind": "header",
        "schema_version": 1,
        "run": "run",
        "bibench_version": "0.1.0",
        "command": ["bibench", "profile"],
        "preset": "standard",
        "seed": 0,
        "started_at": "2026-01-02T03:04:05Z",
        "environment": {"machine": "aarch64", "cpu": "Cortex-A72"},
        "planned": [],
    }
    yield {
        "kind": "artifact",
        "artifact": "aaaa",
        "path": "out/net",
        "twin": None,
        "manifest": {
            "name": name,
            "role": "model",
            "target": "lce",
            "size_bytes": size_bytes,
            "model_sha256": "0" * 64,
        },
    }
    for number in range(9):
        yield key | {
            "kind": "block",
            "block": number,
            "runtime": {"name": "lce", "version": "0.16.0"},
            "samples_ms": [p50_ms * (1 + number / 5000)] * 3,
            "warmup_count": 1,
            "warmup_settled": True,
            "other_load": load,
            "init_ms": 1.0,
            "peak_memory_mib": None,
            "note": None,
        }


def write(path, *arguments, **options):
    text = "".join(json.dumps(line) + "\n" for line in lines(*arguments, **options))
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("old.jsonl"), 10.0)

    def compare(*arguments, **new):
        if new:
            write(Path("new.jsonl"), new.pop("p50_ms"), **new)
        return CliRunner().invoke(app, ["compare", "old.jsonl", "new.jsonl", *arguments])

    return compare


@pytest.mark.parametrize(
    ("new", "exit_code", "headline"),
    [
        ({"p50_ms": 10.0}, 0, "no change: 2 no change"),
        ({"p50_ms": 5.0}, 0, "better: 1 faster, 1 no change"),
        ({"p50_ms": 12.0}, 1, "worse: 1 slower, 1 no change"),
        ({"p50_ms": 10.0, "size_bytes": 2000}, 1, "worse: 1 larger, 1 no change"),
        ({"p50_ms": 12.0, "load": 0.5}, 3, "inconclusive: 1 inconclusive, 1 no change"),
    ],
)
def test_the_exit_code_is_that_of_the_contract(run, new, exit_code, headline):
    done = run(**new)
    assert done.exit_code == exit_code
    assert done.stdout.splitlines()[0] == headline


def test_the_change_its_interval_and_the_reason_are_shown(run):
    text = run(p50_ms=12.0).stdout
    assert "10.0 ms  12.0 ms  +20.0 %" in text
    assert "slower   beyond the limit of 3.0 %" in text


def test_json_is_all_that_stands_on_stdout(run):
    printed = json.loads(run("--json", p50_ms=12.0).stdout)
    assert (printed["kind"], printed["outcome"]) == ("bibench-comparison", "worse")
    assert printed["latencies"][0]["verdict"] == "slower"
    assert printed["latencies"][0]["change"] == pytest.approx(0.2)
    assert printed["sizes"][0]["old_bytes"] == 1000


def test_markdown_is_for_the_summary_of_a_ci_job(run):
    assert run("--format", "md", p50_ms=12.0).stdout.startswith("# worse: 1 slower")


def test_the_threshold_is_in_percent(run):
    assert run("--threshold", "25", p50_ms=12.0).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "new.jsonl does not exist; name a .jsonl file that bibench profile wrote"),
        (["--threshold", "-1"], "Invalid value for '--threshold'"),
        (["--format", "pdf"], 'unknown format "pdf"'),
    ],
)
def test_what_could_not_run_is_one_line_and_exit_code_2(run, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_in_common_is_exit_code_2(run):
    done = run(p50_ms=10.0, name="other")
    assert done.exit_code == 2
    assert "have no cell in common" in done.stderr


def test_a_name_cannot_steer_the_terminal(run):
    write(Path("old.jsonl"), 10.0, name="a\x1b[31mb")
    assert "\x1b" not in run(p50_ms=10.0, name="a\x1b[31mb").stdout


def test_the_module_imports_nothing_heavy():
    code = (
        "import sys, bibench_deploy.cli.compare\n"
        "heavy = {'matplotlib', 'jinja2', 'numpy', 'torch', 'tensorflow', 'onnx'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
