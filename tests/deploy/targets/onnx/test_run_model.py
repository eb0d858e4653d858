from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from bibench_deploy.targets.lce import run_model as lce_run_model
from bibench_deploy.targets.onnx import run_model

SCRIPT = Path(run_model.__file__)
SHORT = ["--min-runs", "3", "--min-seconds", "0", "--warmup-min-s", "0", "--warmup-max-s", "0"]


@pytest.fixture
def model(make_proto, tmp_path: Path) -> Path:
    onnx.save(make_proto("g (float[1,3,8,8] x) => (y) { y = Relu(x) }"), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def run_script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_script_prints_one_json_object_with_every_sample(model: Path) -> None:
    done = run_script("--model", model, "--threads", 2, *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert len(printed["samples_ms"]) == 3
    assert min(printed["samples_ms"]) > 0
    assert printed["warmup_count"] >= 5
    assert printed["peak_memory_mib"] > 0
    assert len(printed["extension_sha256"]) == 64


def test_the_script_imports_only_the_standard_library_and_the_runtime() -> None:
    # The feature version refuses syntax that Python 3.8 on a device could not read.
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").split(".")[0])
    assert modules - sys.stdlib_module_names == {"numpy", "onnxruntime"}


@pytest.mark.parametrize("name", ["warm_up", "take_samples", "busy_s", "peak_memory_mib"])
def test_both_scripts_measure_in_the_same_way(name: str) -> None:
    """Each is one file that needs no other, so what they share stands in both."""

    def body(script: Path) -> str:
        tree = ast.parse(script.read_text(encoding="utf-8"))
        [found] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
        return "\n".join(ast.unparse(statement) for statement in found.body[1:])

    assert body(SCRIPT) == body(Path(lce_run_model.__file__))


def test_inputs_have_the_models_shapes_and_types_and_follow_the_seed(make_proto) -> None:
    proto = make_proto(
        "g (float[N,3] a, int64[2] b, bool[1] c) => (d, e, f) "
        "{ d = Relu(a)  e = Neg(b)  f = Not(c) }"
    )
    for output, kind in zip(proto.graph.output, (1, 7, 9), strict=True):
        output.type.tensor_type.elem_type = kind
    session = run_model.load_session(proto.SerializeToString())
    first, again, other = (run_model.make_inputs(session, seed) for seed in (0, 0, 1))
    assert {name: (a.shape, a.dtype.name) for name, a in first.items()} == {
        "a": ((1, 3), "float32"),
        "b": ((2,), "int64"),
        "c": ((1,), "bool"),
    }
    np.testing.assert_array_equal(first["a"], again["a"])
    assert not np.array_equal(first["a"], other["a"])


def test_a_missing_model_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run_script("--model", tmp_path / "none.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    path = tmp_path / "none.onnx"
    assert done.stderr == f"run_model: cannot read {path}: No such file or directory\n"


@pytest.mark.parametrize(
    ("content", "options"), [(b"\xff\xd8 no model", []), (None, ["--threads", "0"])]
)
def test_what_cannot_run_is_one_line_and_exit_code_2(
    model: Path, content: bytes | None, options: list[str]
) -> None:
    if content:
        model.write_bytes(content)
    done = run_script("--model", model, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("run_model: ")
    assert done.stderr.count("\n") == 1


def test_a_library_that_cannot_be_loaded_is_named(model: Path, tmp_path: Path) -> None:
    done = run_script("--model", model, "--custom-ops-library", tmp_path / "none.so")
    assert done.returncode == 2
    assert "none.so" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_runtime_is_one_line_that_says_how_to_install_it(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(SCRIPT), "--model", str(model)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "run: python -m pip install onnxruntime numpy" in done.stderr
    assert done.stderr.count("\n") == 1
