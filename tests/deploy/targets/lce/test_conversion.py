import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from bibench_deploy.errors import ConversionError, MissingExtraError
from bibench_deploy.targets.lce import TARGET, conversion
from bibench_deploy.targets.lce.conversion import ConversionProcess

DIES = "import sys; print('noise', file=sys.stderr); sys.exit('last words')"
DIES_SILENTLY = "raise SystemExit(3)"
ANSWERS = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"versions": {}, "asked": json.loads(line)}), flush=True)
"""


@pytest.fixture
def child(monkeypatch):
    """child(code): ConversionProcess starts this Python code; gives the list of processes."""
    started: list[subprocess.Popen] = []
    start = subprocess.Popen

    def choose(code: str):
        def popen(command, **options):
            assert command[0] == sys.executable
            started.append(start([sys.executable, "-c", code], **options))
            return started[-1]

        monkeypatch.setattr(conversion.subprocess, "Popen", popen)
        return started

    return choose


def test_requests_reach_the_child_with_full_paths(child, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    child(ANSWERS)
    with ConversionProcess() as process:
        for name in ("one.onnx", "two ü\n.onnx"):
            reply = process.convert(tmp_path / name, tmp_path)
            assert reply["asked"] == {
                "action": "convert",
                "lowered": str(tmp_path / name),
                "directory": str(tmp_path),
                "turns_input": True,
            }


@pytest.mark.parametrize(
    ("code", "words"),
    [(DIES, "exit code 1: last words"), (DIES_SILENTLY, "exit code 3: it said nothing")],
)
def test_a_child_that_died_is_reported_with_its_last_words(code, words, child, tmp_path) -> None:
    child(code)
    with ConversionProcess() as process, pytest.raises(ConversionError, match=words):
        process.convert(tmp_path / "model.onnx", tmp_path)


def test_a_child_that_is_killed_is_reported(child, tmp_path) -> None:
    started = child("import time; time.sleep(60)")
    with ConversionProcess() as process:
        started[0].kill()
        with pytest.raises(ConversionError, match=r"was ended by SIGKILL, .* short of memory"):
            process.convert(tmp_path / "model.onnx", tmp_path)


def test_the_child_is_gone_after_the_block(child) -> None:
    started = child(ANSWERS)
    with ConversionProcess():
        assert started[0].poll() is None
    assert started[0].returncode is not None
    assert started[0].stdin.closed
    assert started[0].stdout.closed


WRITES = (
    """
import pathlib, tempfile
pathlib.Path(tempfile.gettempdir(), "left.py").touch()
"""
    + ANSWERS
)


def test_what_the_child_leaves_among_temporary_files_goes_with_it(
    child, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(conversion.tempfile, "tempdir", str(tmp_path))
    child(WRITES)
    with ConversionProcess() as process:
        process.convert(tmp_path / "model.onnx", tmp_path)
        assert len(list(tmp_path.rglob("left.py"))) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_child_is_gone_after_an_error_too(error, child) -> None:
    started = child("import time; time.sleep(60)")
    with pytest.raises(error), ConversionProcess():
        raise error
    assert started[0].returncode is not None


@pytest.mark.parametrize("package", ["tensorflow", "tf_keras", "larq", "larq_compute_engine"])
def test_a_missing_package_is_named_with_the_command_that_adds_it(
    package, monkeypatch, child
) -> None:
    started = child(ANSWERS)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingExtraError) as raised:
        ConversionProcess()
    assert str(raised.value) == (
        f"export to LCE needs {package}, which is not installed; "
        'run in a clone of bibench: python -m pip install ".[lce]"'
    )
    assert started == []


@pytest.mark.parametrize("error", [ImportError("half"), ValueError("tensorflow.__spec__ is None")])
def test_a_package_that_is_there_in_part_counts_as_missing(error, monkeypatch, child) -> None:
    started = child(ANSWERS)

    def find(name):
        raise error

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingExtraError, match="needs tensorflow, which is not installed"):
        ConversionProcess()
    assert started == []


def test_a_numpy_that_the_interpreter_cannot_read_is_refused_before_anything(
    monkeypatch, child
) -> None:
    started = child(ANSWERS)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.3")
    with pytest.raises(MissingExtraError) as raised:
        ConversionProcess()
    assert str(raised.value) == (
        "export to LCE needs numpy below 2, but 2.1.3 is installed; "
        'run in a clone of bibench: python -m pip install ".[lce]"'
    )
    assert started == []


REPLIES = {
    '{"missing": "keras"}': (MissingExtraError, r"export to LCE needs keras, .*\[lce\]"),
    '{"unwritten": [28, "No space left on device", "here/model.keras"]}': (
        OSError, "No space left on device: 'here/model.keras'",
    ),
    '{"error": "ValueError: no"}': (ConversionError, "LCE's converter failed: ValueError: no"),
}  # fmt: skip


@pytest.mark.parametrize("reply", REPLIES)
def test_what_went_wrong_in_the_child_is_raised_here(reply, child, tmp_path) -> None:
    kind, words = REPLIES[reply]
    child(f"input(); print({reply!r}, flush=True); input()")
    with ConversionProcess() as process, pytest.raises(kind, match=words):
        process.convert(tmp_path / "model.onnx", tmp_path)


def test_a_file_that_is_to_be_stored_smaller_stays_where_that_fails(lce_writer, tmp_path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\0\0\0\0TFL3 but no more")
    with pytest.raises(ConversionError, match="LCE's converter failed: "):
        lce_writer._process.store_smaller(path, "int8", "float32")
    assert path.read_bytes() == b"\0\0\0\0TFL3 but no more"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]


def test_the_real_converters_error_is_passed_on_and_it_lives_on(
    lce_writer, converted, tmp_path
) -> None:
    process = lce_writer._process
    with pytest.raises(ConversionError, match="LCE's converter failed: FileNotFoundError"):
        process.convert(tmp_path / "absent.onnx", tmp_path)
    written = lce_writer.write(converted.lowered, tmp_path)
    assert written.files["model"].read_bytes()[4:8] == b"TFL3"


def test_the_versions_of_all_that_took_part_are_told(converted) -> None:
    assert set(converted.written.versions) == {
        "tensorflow", "tf-keras", "larq", "larq-compute-engine",
    }  # fmt: skip


BY_LARQ = """
import sys
import larq, larq_compute_engine, tensorflow as tf

model = tf.keras.models.load_model(sys.argv[1])
sys.stdout.buffer.write(larq_compute_engine.convert_keras_model(model))
"""


def test_the_file_is_the_one_that_larq_makes_of_the_keras_model(
    lce_writer, make_graph, tmp_path
) -> None:
    rng = np.random.default_rng(0)
    graph = make_graph(
        """g (float[1,3,8,8] x) => (y) { f = Conv<pads=[1,1,1,1], strides=[2,2]>(x, v)
        s = Sign(f)  c = Conv<pads=[1,1,1,1]>(s, w)  n = BatchNormalization(c, g, b, b, g)
        a = Add(n, f)  m = GlobalAveragePool(a)  y = Flatten(m) }""",
        v=rng.standard_normal((8, 3, 3, 3)),
        w=np.where(rng.standard_normal((8, 8, 3, 3)) < 0, -1.0, 1.0),
        g=rng.uniform(0.5, 2, 8),
        b=rng.standard_normal(8),
    )
    written = lce_writer.write(TARGET.lower(graph), tmp_path)
    reference = subprocess.run(
        [sys.executable, "-c", BY_LARQ, str(written.files["keras"])],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=200,
    )
    assert written.files["model"].read_bytes() == reference.stdout
