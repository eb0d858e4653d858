from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bibench_deploy.targets.lce import run_model

SCRIPT = Path(run_model.__file__)
SHORT = ["--min-runs", "3", "--min-seconds", "0", "--warmup-min-s", "0", "--warmup-max-s", "0"]


def run_script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("kernel", run_model.KERNELS)
@pytest.mark.parametrize("use_xnnpack", [True, False])
def test_every_kernel_gives_the_same_outputs(
    small_tflite_models: Path, kernel: str, use_xnnpack: bool
) -> None:
    model = (small_tflite_models / "binary.tflite").read_bytes()
    reference = run_model.load_interpreter(model, kernel="reference", use_xnnpack=False)
    tested = run_model.load_interpreter(model, threads=2, kernel=kernel, use_xnnpack=use_xnnpack)
    inputs = run_model.make_inputs(tested, seed=1)
    [expected] = reference.predict(inputs)
    [got] = tested.predict(inputs)
    assert expected.shape == (1, 10)
    # The binary layer is exact; the float layers around it sum in another order.
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_inputs_have_the_models_shape_and_type_and_follow_the_seed(
    small_tflite_models: Path,
) -> None:
    interpreter = run_model.load_interpreter((small_tflite_models / "float.tflite").read_bytes())
    [first], [again], [other] = (run_model.make_inputs(interpreter, seed) for seed in (0, 0, 1))
    assert first.shape == (1, 8, 8, 3)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_loading_the_interpreter_imports_neither_tensorflow_nor_its_own_package(
    small_tflite_models: Path,
) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from bibench_deploy.targets.lce.run_model import load_interpreter\n"
        "load_interpreter(Path(sys.argv[1]).read_bytes())\n"
        "print(sorted({'tensorflow', 'larq_compute_engine', 'torch'} & set(sys.modules)))"
    )
    model = small_tflite_models / "binary.tflite"
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def test_the_script_imports_only_the_standard_library_and_numpy() -> None:
    # The feature version refuses syntax that Python 3.8 on a device could not read.
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").split(".")[0])
    assert modules - sys.stdlib_module_names == {"numpy"}


def test_the_script_prints_one_json_object_with_every_sample(small_tflite_models: Path) -> None:
    done = run_script("--model", small_tflite_models / "binary.tflite", "--threads", 2, *SHORT)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert len(printed["samples_ms"]) == 3
    assert min(printed["samples_ms"]) > 0
    assert printed["warmup_count"] >= 5
    assert printed["input_shapes"] == [[1, 8, 8, 3]]
    assert printed["init_ms"] > 0
    assert printed["peak_memory_mib"] >= printed["memory_before_mib"] > 0
    extension = run_model.find_extension().read_bytes()
    assert printed["extension_sha256"] == hashlib.sha256(extension).hexdigest()
    assert printed["numpy"] == np.__version__


def test_a_missing_model_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run_script("--model", tmp_path / "none.tflite")
    assert done.returncode == 2
    assert done.stdout == ""
    path = tmp_path / "none.tflite"
    assert done.stderr == f"run_model: cannot read {path}: No such file or directory\n"


def test_a_file_of_another_kind_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "photo.tflite").write_bytes(b"\xff\xd8 no model")
    done = run_script("--model", tmp_path / "photo.tflite")
    assert done.returncode == 2
    assert done.stderr.startswith("run_model: this is no TFLite model")
    assert done.stderr.count("\n") == 1


def test_a_missing_runtime_is_one_line_that_says_how_to_install_it(
    small_tflite_models: Path, tmp_path: Path
) -> None:
    # Isolated from site-packages, with numpy alone brought back.
    (tmp_path / "numpy").symlink_to(Path(np.__file__).parent)
    libraries = Path(np.__file__).parents[1] / "numpy.libs"
    if libraries.is_dir():
        (tmp_path / "numpy.libs").symlink_to(libraries)
    done = subprocess.run(
        [sys.executable, "-S", str(SCRIPT), "--model", str(small_tflite_models / "float.tflite")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("run_model: larq_compute_engine is not installed; run: ")
    assert done.stderr.count("\n") == 1


def test_a_numpy_that_the_interpreter_cannot_read_is_refused(
    small_tflite_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(run_model.RuntimeMissingError, match=r"numpy 2\.1\.0 is too new"):
        run_model.load_interpreter((small_tflite_models / "float.tflite").read_bytes())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kernel": "fast"}, 'unknown kernel "fast"'), ({"threads": 0}, "at least 1")],
)
def test_an_argument_out_of_range_is_a_value_error(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_model.load_interpreter(b"    TFL3", **options)


def test_a_steady_model_settles_after_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(run_model.time, "perf_counter", lambda: float(next(clock)))
    count, is_settled = run_model.warm_up(lambda: 2.0, min_s=0, max_s=60)
    assert (count, is_settled) == (10, True)


def test_a_model_that_keeps_speeding_up_is_given_up_unsettled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count(step=0.02)
    monkeypatch.setattr(run_model.time, "perf_counter", lambda: next(clock))
    times = (1000 * 0.9**step for step in itertools.count())
    count, is_settled = run_model.warm_up(lambda: next(times), min_s=0, max_s=2)
    assert count >= 10
    assert not is_settled


def test_samples_are_taken_until_both_the_runs_and_the_time_are_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(run_model.time, "perf_counter", lambda: float(next(clock)))
    assert len(run_model.take_samples(lambda: 1.0, min_runs=3, min_s=7, max_s=100)) == 7
    assert len(run_model.take_samples(lambda: 1.0, min_runs=9, min_s=7, max_s=100)) == 9
    assert len(run_model.take_samples(lambda: 1.0, min_runs=9, min_s=7, max_s=4)) == 4


def test_the_peak_is_this_process_own_and_not_that_of_the_process_that_started_it(
    small_tflite_models: Path,
) -> None:
    ballast = np.ones(300 * 2**20, dtype=np.uint8)
    done = run_script("--model", small_tflite_models / "float.tflite", *SHORT)
    assert json.loads(done.stdout)["peak_memory_mib"] < 200
    assert ballast[-1] == 1
