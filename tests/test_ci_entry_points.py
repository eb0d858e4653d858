"""What other projects call in their CI: the pre-commit hook and the GitHub Action."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
NODES = {
    "clean": "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)  y = Conv(s, w)",
    "error": "s = Sign(x)  c = Conv(s, w)  y = Mul(c, rows)",
}
ARRAYS = {
    "w": SIGNS, "rows": np.linspace(0.5, 2, 6).reshape(6, 1),
    "zero": np.zeros(()), "one": np.ones(()), "minus": -np.ones(()),
}  # fmt: skip


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with clean.onnx and error.onnx."""
    for name, nodes in NODES.items():
        text = f"g (float[1,4,8,8] x) => (float[1,8,6,6] y) {{ {nodes} }}"
        graph = onnx.parser.parse_graph(text)
        for key, array in ARRAYS.items():
            tensor = onnx.numpy_helper.from_array(np.asarray(array, np.float32), key)
            graph.initializer.append(tensor)
        opsets = [onnx.helper.make_opsetid("", 18)]
        onnx.save(
            onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8),
            tmp_path / f"{name}.onnx",
        )
    return tmp_path


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_hook_runs_on_the_files_that_pre_commit_gives_it(models: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["language"]) == ("bibench-lint", "python")
    assert re.search(hook["files"], "models/net.onnx")
    assert not re.search(hook["files"], "models/net.onnx.data")
    command = [*shlex.split(hook["entry"]), "--target", "lce"]
    assert run([*command, "clean.onnx"], models).returncode == 0
    done = run([*command, "clean.onnx", "error.onnx"], models)
    assert done.returncode == 1
    assert "BIB201" in done.stdout


def step(name: str) -> dict[str, Any]:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (found,) = [item for item in action["runs"]["steps"] if item.get("name") == name]
    return found


def lint(models: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the action's own script, with its own names of variables and its defaults."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    values = {key: entry.get("default", "") for key, entry in action["inputs"].items()} | inputs
    variables = {
        name: re.sub(r"\${{ inputs\.([\w-]+) }}", lambda found: values[found[1]], text)
        for name, text in step("Lint")["env"].items()
    }
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step("Lint")["run"]]
    return run(script, models, **variables)


def test_the_action_annotates_and_fails_on_an_error(models: Path) -> None:
    done = lint(models, source="*.onnx")
    assert done.returncode == 1
    assert "::error file=error.onnx,title=BIB201 scale-granularity for lce::" in done.stdout
    assert "clean.onnx for lce: 0 error" in done.stdout
    assert lint(models, source="clean.onnx").returncode == 0


def test_the_action_writes_a_file_for_code_scanning(models: Path) -> None:
    inputs = {"format": "sarif", "output": "lint.sarif", "exit-zero": "true"}
    done = lint(models, source="error.onnx", **inputs)
    assert done.returncode == 0, done.stderr
    assert '"version": "2.1.0"' in (models / "lint.sarif").read_text()


def test_what_cannot_run_fails_the_action(models: Path) -> None:
    done = lint(models, source="absent.onnx")
    assert done.returncode == 2
    assert "absent.onnx: no such file" in done.stderr


def test_inputs_are_no_part_of_the_script(models: Path) -> None:
    done = lint(models, source="clean.onnx; touch harmed", target='lce"; touch harmed; "')
    assert done.returncode == 2
    assert not (models / "harmed").exists()
    assert "${{" not in step("Lint")["run"]


def test_the_action_installs_what_lint_needs_and_no_more() -> None:
    assert step("Install bibench")["run"] == 'python -m pip install --quiet "$HERE"'
