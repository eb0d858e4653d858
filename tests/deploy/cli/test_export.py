import contextlib
import errno
import json
import signal
import subprocess
import sys

import pytest

from bibench_deploy.artifact import Artifact
from bibench_deploy.cli.export import summary
from bibench_deploy.export import pipeline
from bibench_deploy.targets.lce.target import LceTarget

BIBENCH = "from bibench_deploy.cli.app import main; main()"


def files_below(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_is_interrupted_ends_in_one_line_and_leaves_nothing(
    number, networks
) -> None:
    before = files_below(networks)
    # A process started in the background may have inherited that SIGINT is ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + BIBENCH
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
        'unknown target "lcee" (did you mean "lce"?); one of: lce',
    ),
    "a missing file": (["absent.onnx"], "absent.onnx: no such file"),
    "no run": ([], "no run in ./runs"),
    "a callable without a shape": (["networks:make"], "--input-shape 1,3,224,224"),
    "a folder of other files": (["clean.onnx", "--out", "."], "is not an exported folder"),
    "a file in the way": (["clean.onnx", "--out", "error.onnx/here"], "cannot write "),
    "a file itself": (["clean.onnx", "--out", "error.onnx"], "is not an exported folder"),
    "what lint finds": (["error.onnx"], "BIB201"),
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
