import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.cli.export import summary
from bibench_deploy.export import pipeline
from bibench_deploy.targets.lce.target import LceTarget

BIBENCH = "from bibench_deploy.__main__ import main; main()"


def files_below(folder) -> set[str]:
    # Python keeps the bytecode of what it imports beside it.
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_the_manifest_is_all_of_stdout_and_progress_is_on_stderr(networks) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BIBENCH, "export", "clean.onnx", "--target", "lce", "--baseline",
         "--json"],
        capture_output=True, text=True, timeout=300, cwd=networks,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    artifact = Artifact.load(networks / "out" / "clean-lce")
    assert json.loads(done.stdout) == artifact.manifest
    assert done.stderr.splitlines()[0] == "writing ONNX"
    assert all(
        line.startswith(("writing", "converting", "comparing")) for line in done.stderr.splitlines()
    )
    assert artifact.manifest["verification"]["residency"] == {"intended": 1, "resident": 1}
    assert Artifact.load(artifact.directory / "fp32").role == "fp32_twin"
    assert {path.name for path in (networks / "out").iterdir()} == {"clean-lce"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_interrupted_ends_in_one_line_and_leaves_nothing(
    number, networks
) -> None:
    before = files_below(networks)
    # A process started in the background may have inherited that these are ignored.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); " + BIBENCH
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "export", "clean.onnx", "--target", "lce"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=networks,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if line.startswith("converting"):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("bibench: interrupted; ")
    assert files_below(networks) - before <= {"out"}


BAD = {
    "an unknown target": (
        ["clean.onnx", "--target", "lcee"],
        'unknown target "lcee" (did you mean "lce"?); one of: dabnn, lce',
    ),
    "a missing file": (["absent.onnx"], "absent.onnx: no such file"),
    "no run": ([], "no run in ./runs"),
    "a callable without a shape": (["networks:make"], "--input-shape 1,3,224,224"),
    "a folder of other files": (["clean.onnx", "--out", "."], "is not an exported folder"),
    "a file in the way": (["clean.onnx", "--out", "error.onnx/here"], "cannot write "),
    "a file itself": (["clean.onnx", "--out", "error.onnx"], "is not an exported folder"),
    "an input beyond memory": (
        ["networks:make", "--input-shape", "1,3,5000000,5000000"],
        "beyond what can be run",
    ),
    "what lint finds": (["error.onnx"], "BIB201"),
    "a scale that is not folded": (["error.onnx"], "or export with --allow-unfused-scales, which"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_keeps_it_from_running_is_one_line_and_exit_2(
    case, networks, bibench, monkeypatch
) -> None:
    arguments, words = BAD[case]
    # None of these may get as far as converting anything.
    monkeypatch.setattr(LceTarget, "open_writer", lambda _: contextlib.nullcontext())
    before = files_below(networks)
    result = bibench("export", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = [line for line in result.stderr.splitlines() if line.startswith("bibench: ")]
    assert result.stderr.splitlines()[-1:] == lines
    assert words in lines[0]
    assert files_below(networks) - before <= {"out"}


def test_a_full_disk_is_one_line_and_leaves_nothing(networks, bibench, monkeypatch) -> None:
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "out/.clean-lce-x/new/model.onnx")

    monkeypatch.setattr(pipeline, "write_onnx", full)
    monkeypatch.setattr(LceTarget, "open_writer", lambda _: contextlib.nullcontext())
    result = bibench("export", "clean.onnx", "--out", "full")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("bibench: cannot write ")
    assert "No space left on device; make room or choose another --out" in result.stderr
    assert not (networks / "full").exists()


def run(folder, *arguments, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BIBENCH, "export", *arguments],
        capture_output=True, text=True, timeout=300, cwd=folder, **options,
    )  # fmt: skip


MISSING = {
    "tensorflow": ("clean.onnx", '".[lce]"'),
    "tf_keras": ("clean.onnx", '".[lce]"'),  # as with Keras 3 alone
    "larq": ("clean.onnx", '".[lce]"'),
    "larq_compute_engine": ("clean.onnx", '".[lce]"'),
    "onnxruntime": ("clean.onnx", "install ."),
    "torch": ("networks:make", '".[train]"'),
}


@pytest.mark.parametrize("package", MISSING)
def test_a_missing_package_is_one_line_with_the_command_that_adds_it(
    package, networks, bibench_without
) -> None:
    source, extra = MISSING[package]
    before = files_below(networks)
    done = bibench_without(package, "export", source, "--input-shape", "1,4,8,8")
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("bibench: ")
    assert f"needs {package}, which is not installed" in line
    assert line.endswith(extra)
    assert "Traceback" not in done.stderr
    assert files_below(networks) == before


def test_a_package_that_the_converter_finds_missing_is_named_too(networks) -> None:
    fake = networks / "site" / "larq_compute_engine"
    fake.mkdir(parents=True)
    fake.joinpath("__init__.py").write_text("import a_part_of_tensorflow")
    before = files_below(networks)
    done = run(networks, "clean.onnx", env={**os.environ, "PYTHONPATH": str(networks / "site")})
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs a_part_of_tensorflow, which is not installed" in done.stderr.splitlines()[-1]
    assert files_below(networks) == before


def test_a_numpy_that_the_interpreter_cannot_read_is_one_line(networks) -> None:
    fake = networks / "site" / "numpy-2.2.0.dist-info"
    fake.mkdir(parents=True)
    fake.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.2.0\n")
    before = files_below(networks)
    done = run(networks, "clean.onnx", env={**os.environ, "PYTHONPATH": str(networks / "site")})
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs numpy below 2, but 2.2.0 is installed" in done.stderr.splitlines()[-1]
    assert files_below(networks) == before


def test_a_converter_that_is_killed_is_one_line_and_leaves_nothing(networks) -> None:
    before = files_below(networks)
    with subprocess.Popen(
        [sys.executable, "-c", BIBENCH, "export", "clean.onnx"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=networks,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if line.startswith("converting"):
                break
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith("bibench: the conversion process was ended by SIGKILL")
    assert "Traceback" not in err
    assert files_below(networks) == before


def test_a_disk_that_is_full_for_one_file_names_it_and_leaves_nothing(networks) -> None:
    before = files_below(networks)

    def limit() -> None:
        # Python ignores the signal, so that writing more raises "File too large".
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))

    done = run(networks, "clean.onnx", preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("bibench: cannot write ")
    assert "File too large; make room or choose another --out" in line
    assert "/new/" in line
    assert files_below(networks) == before


# Between the size of clean.onnx and those of the files that are made of it.
LARGEST = 4096

PARITY = {
    "inputs": 8, "max_abs_error": 1.2e-6, "max_abs_error_same_signs": 1.2e-6,
    "top1_agreement": 1.0, "flip_rate": 0.0, "unexplained_flips": 0,
}  # fmt: skip


def artifact_of(tmp_path, **verification) -> Artifact:
    manifest = {
        "name": "net", "target": "lce", "role": "model", "size_bytes": 61312,
        "files": {"model": {"path": "model.tflite"}},
        "verification": {
            "residency": {"intended": 18, "resident": 18},
            "parity": {"inputs": 8, "torch_to_onnx": PARITY, "onnx_to_target": PARITY},
            "accuracy": {"images": 360, "target_correct": 356, "target_percent": 98.89,
                         "same_answers": 360},
            **verification,
        },
        "findings": [],
    }  # fmt: skip
    return Artifact(tmp_path, manifest)


FLIPS = PARITY | {"flip_rate": 3e-7, "max_abs_error": 0.02, "top1_agreement": 0.875}
FORMS = {
    "plain": {},
    "flips": {"parity": {"inputs": 8, "torch_to_onnx": None, "onnx_to_target": FLIPS}},
    "not verified": {"parity": None, "accuracy": None},
    "float": {"residency": {"intended": 0, "resident": 0}, "accuracy": None,
              "parity": {"inputs": 8, "torch_to_onnx": None,
                         "onnx_to_target": PARITY | {"flip_rate": None}}},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_summary_says_what_was_proved(form, tmp_path, snapshot) -> None:
    text = summary(artifact_of(tmp_path, **FORMS[form]))
    assert text.replace(str(tmp_path), "out/net-lce") == snapshot


def test_the_summary_lists_findings_and_the_twin(tmp_path) -> None:
    artifact = artifact_of(tmp_path)
    artifact.manifest["findings"] = [
        {"code": "BIB101", "severity": "warning", "layer": "conv1", "message": "0 becomes 0"}
    ]
    (tmp_path / "fp32").mkdir()
    twin = artifact.manifest | {
        "schema_version": 1, "kind": "bibench-artifact", "model_sha256": "0", "size_bytes": 613120,
    }  # fmt: skip
    (tmp_path / "fp32" / "manifest.json").write_text(json.dumps(twin))
    text = summary(artifact)
    assert "  warning    BIB101 conv1: 0 becomes 0\n" in text
    assert "  FP32 twin  613.1 kB, 10.0 times as large\n" in text


STORAGE = {
    "exact_size_bytes": 63400, "size_bytes": 61312, "exact_accuracy": None,
    "cost": {"inputs": 8, "max_relative_error": 0.031, "top1_agreement": 1.0, "flip_rate": 2e-4},
}  # fmt: skip
EXACT = {"images": 360, "target_correct": 353, "target_percent": 98.06, "same_answers": 360}
STORED = {
    "with a test set": STORAGE | {"exact_accuracy": EXACT},
    "without one": STORAGE,
    "float": STORAGE | {"cost": STORAGE["cost"] | {"flip_rate": None}},
    "not measured": STORAGE | {"cost": None},
    "larger": STORAGE | {"exact_size_bytes": 61000},
}


@pytest.mark.parametrize("form", STORED)
def test_the_summary_says_what_smaller_storage_saves_and_costs(form, tmp_path, snapshot) -> None:
    artifact = artifact_of(tmp_path, storage=STORED[form])
    artifact.manifest["layers"] = [{"actual_bits": 1}, {"actual_bits": 8}]
    artifact.manifest["options"] = {
        "input": "plain", "fully_connected": "int8", "float_storage": "float16",
    }  # fmt: skip
    (line,) = (line for line in summary(artifact).splitlines() if "  storage " in line)
    assert line == snapshot


@pytest.mark.parametrize("size", [63400, 63360, 63440])
def test_smaller_storage_that_saves_nothing_has_no_figures(size, tmp_path) -> None:
    artifact = artifact_of(tmp_path, storage=STORAGE | {"size_bytes": size})
    artifact.manifest["layers"] = [{"actual_bits": 1, "kernel": "QLinearConv"}]
    options = {"input": "plain", "fully_connected": "float32", "float_storage": "float16"}
    artifact.manifest["options"] = options
    (line,) = (line for line in summary(artifact).splitlines() if "  storage " in line)
    assert line == "  storage    float16 storage: saves nothing here; leave it out"
    # A stem in 8 bits is there to be faster.
    artifact.manifest["options"] = options | {"stem": "int8"}
    (line,) = (line for line in summary(artifact).splitlines() if "  storage " in line)
    assert "float16 storage and int8 stem: 0.0 kB" in line


def test_the_summary_claims_no_8_bits_where_no_layer_has_them(tmp_path) -> None:
    artifact = artifact_of(tmp_path, storage=STORAGE)
    artifact.manifest["layers"] = [{"actual_bits": 1}, {"actual_bits": 32}, {"actual_bits": None}]
    for float_storage in ("float32", "float16"):
        artifact.manifest["options"] = {
            "input": "plain", "fully_connected": "int8", "float_storage": float_storage,
        }  # fmt: skip
        first, *others = (
            line for line in summary(artifact).splitlines() if line.startswith("  storage ")
        )
        assert first == "  storage    no float fully connected layer is large enough for int8"
        assert [line[13:35] for line in others] == ["float16 storage: 2.1 k"] * len(others)
        assert len(others) == (float_storage == "float16")


@pytest.mark.parametrize(
    ("is_rotated", "words"),
    [(True, "turn each image by 180° before it goes in"), (False, "nothing to rotate")],
)
def test_the_summary_says_who_turns_the_image(is_rotated, words, tmp_path) -> None:
    artifact = artifact_of(tmp_path)
    artifact.manifest.update(options={"input": "rotated"}, input={"rotated": is_rotated})
    assert words in summary(artifact)


def test_the_summary_says_what_unfused_scales_cost(tmp_path) -> None:
    cost = {"layers": 18, "extra_operators": {"MUL": 18, "MEAN": 17}, "latency_ratio": 1.284}
    text = summary(artifact_of(tmp_path, unfused_scales=cost))
    words = "18 scales run as float operators (18 MUL, 17 MEAN more)"
    assert f"  unfused    {words}: 1.28 times the latency without them\n" in text
    assert "unfused" not in summary(artifact_of(tmp_path, unfused_scales=None))


SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
CLASSES = """g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)  c = Conv(s, w)
    p = GlobalAveragePool(c)  y = Flatten(p)"""


def test_options_reach_the_file_and_the_table_is_in_front_of_the_summary(
    networks, make_proto
) -> None:
    numbers = {"zero": 0.0, "one": 1.0, "minus": -1.0, "w": SIGNS}
    proto = make_proto(f"g (float[1,4,8,8] x) => (y) {{ {CLASSES} }}", **numbers)
    onnx.save(proto, "clean.onnx")
    images = np.zeros((5, 4, 8, 8), np.float32)
    np.savez(networks / "test.npz", images=images, labels=np.zeros(5, np.int64))
    done = run(
        networks, "clean.onnx", "--input", "rotated", "--fully-connected", "int8",
        "--float-storage", "float16", "--allow-unfused-scales", "--data", "test.npz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    artifact = Artifact.load(networks / "out" / "clean-lce")
    assert artifact.manifest["options"] == {
        "allow_unfused_scales": True, "input": "rotated", "fully_connected": "int8",
        "float_storage": "float16", "stem": "float32", "padding": "refuse",
        "allow_mean_shift": False,
    }  # fmt: skip
    heading, row, empty, title, *_ = done.stdout.splitlines()
    assert heading.split() == ["layer", "weights", "became", "bits", "bytes", "intended"]
    assert "LceBconv2d" in row
    assert (empty, title) == ("", "out/clean-lce: clean for lce")
    assert artifact.manifest["verification"]["accuracy"]["images"] == 5


@pytest.mark.parametrize(
    ("option", "value"),
    [("--input", "turned"), ("--fully-connected", "int4"), ("--float-storage", "bfloat16")],
)
def test_a_value_that_an_option_has_not_is_one_line(option, value, networks, bibench) -> None:
    result = bibench("export", "clean.onnx", option, value)
    assert result.exit_code == 2
    assert value in result.stderr.splitlines()[-1]
