"""Convert lowered graphs in one child process, the only place that imports TensorFlow.

The child starts at once and imports TensorFlow while the caller still exports; it then
takes requests, one JSON line each, and answers each with one. TensorFlow's noise goes to
a log that is shown only when a conversion fails.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from bibench_deploy.artifact import writing
from bibench_deploy.errors import ConversionError, MissingExtraError

KERAS_NAME = "model.keras"
TFLITE_NAME = "model.tflite"


class ConversionProcess:
    """A child process that turns lowered .onnx files into Keras and LCE models.

    Use it as a context manager: the child ends with the block, whatever happens.
    """

    def __init__(self) -> None:
        _require_packages()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        # TensorFlow leaves source files where temporary files go, and a child that is killed
        # removes none.
        self._scratch = tempfile.TemporaryDirectory(prefix="bibench-", ignore_cleanup_errors=True)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bibench_deploy.targets.lce.conversion"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
                 "CUDA_VISIBLE_DEVICES": "", "TMPDIR": self._scratch.name},
            text=True,
        )  # fmt: skip

    def __enter__(self) -> ConversionProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                # Closing writes what is left, and a child that died reads no more.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()
        self._scratch.cleanup()

    def convert(
        self, lowered: Path, directory: Path, *, turns_input: bool = True
    ) -> dict[str, Any]:
        """Write model.keras and model.tflite for a lowered graph.

        Args:
            lowered: the .onnx file, after the target's lowering passes.
            directory: where the two files go; it exists.
            turns_input: whether a rotated network turns its input itself.

        Returns:
            What the child says of it: `versions` (package → version), `is_rotated`.

        Raises:
            ConversionError: the child failed; carries its last words.
        """
        return self._ask(
            "convert",
            lowered=str(lowered.resolve()),
            directory=str(directory.resolve()),
            turns_input=turns_input,
        )

    def store_smaller(self, tflite: Path, fully_connected: str, float_storage: str) -> None:
        """Rewrite a .tflite file with fewer bits for float weights; see `storage`.

        Raises:
            ConversionError: the child failed; the file is as it was.
        """
        self._ask(
            "store",
            tflite=str(tflite.resolve()),
            fully_connected=fully_connected,
            float_storage=float_storage,
        )

    def _ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        request = {"action": action, **arguments}
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            answer = self._child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._child.wait()
            end = (
                f"was ended by {signal.Signals(-code).name}, as by a system that is short of memory"
                if code < 0
                else f"died with exit code {code}"
            )
            raise ConversionError(f"the conversion process {end}: {self._last_words()}")
        reply: dict[str, Any] = json.loads(answer)
        if "missing" in reply:
            raise MissingExtraError("export to LCE", reply["missing"], "lce")
        if "unwritten" in reply:
            raise OSError(*reply["unwritten"])
        if "error" in reply:
            raise ConversionError(f"LCE's converter failed: {reply['error']}")
        return reply

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _require_packages() -> None:
    from importlib.metadata import version
    from importlib.util import find_spec

    for package in ("tensorflow", "tf_keras", "larq", "larq_compute_engine"):
        try:
            is_there = find_spec(package) is not None
        except (ImportError, ValueError):  # a package that is there in part
            is_there = False
        if not is_there:
            raise MissingExtraError("export to LCE", package, "lce")
    # With numpy 2 the converter works, but the interpreter reads its arrays as empty.
    if int((found := version("numpy")).partition(".")[0]) >= 2:
        raise MissingExtraError("export to LCE", "numpy below 2", "lce", found=found)


def _serve() -> None:
    """The child: answer requests from stdin until it closes."""
    # Libraries print to stdout at will: answers get a pipe of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(ImportError):  # the first request tells it
        import larq_compute_engine  # noqa: F401 - imported now, while the caller is still busy

    actions: dict[str, Callable[..., dict[str, Any]]] = {"convert": _convert, "store": _store}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = actions[request.pop("action")](**request)
        except ModuleNotFoundError as error:
            reply = {"missing": error.name or str(error)}
        except OSError as error:
            if error.errno is None or error.errno == errno.ENOENT:
                reply = {"error": f"{type(error).__name__}: {error}"}
            else:
                reply = {"unwritten": [error.errno, error.strerror, error.filename]}
        except Exception as error:  # the caller must hear of it, whatever it is
            import traceback

            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def _convert(lowered: str, directory: str, turns_input: bool) -> dict[str, Any]:
    from importlib.metadata import version

    import onnx_ir as ir
    import tensorflow as tf

    from bibench_deploy.targets.lce.keras_model import KerasBuilder

    tf.keras.backend.clear_session()
    builder = KerasBuilder(ir.load(lowered), turns_input=turns_input)
    model = builder.build()
    with writing(Path(directory, KERAS_NAME)) as path:
        model.save(path)
    with writing(Path(directory, TFLITE_NAME)) as path:
        path.write_bytes(_to_tflite(model, directory))
    packages = ("tensorflow", "tf-keras", "larq", "larq-compute-engine")
    return {
        "is_rotated": builder.is_rotated,
        "versions": {package: version(package) for package in packages},
    }


def _to_tflite(model: Any, directory: str) -> bytes:
    """What LCE's `convert_keras_model` gives, to the byte, in half the time.

    That one saves a model as Keras does, with functions to train each layer further; the
    converter reads only the one that predicts.
    """
    import larq_compute_engine
    import tensorflow as tf

    source = model.inputs[0]
    name = source.name.partition(":")[0]
    signature = tf.TensorSpec([1, *source.shape[1:]], source.dtype, name=name)

    def run(inputs: Any) -> dict[str, Any]:
        outputs = model(inputs, training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return dict(zip(model.output_names, outputs, strict=True))

    predict = tf.function(run, input_signature=[signature], autograph=False)
    holder = tf.Module()
    holder.weights, holder.predict = model.variables, predict
    # In the folder that goes if this process is killed, not in one that nobody removes.
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        tf.saved_model.save(holder, folder, signatures=predict)
        content: bytes = larq_compute_engine.convert_saved_model(folder)
    return content


def _store(tflite: str, fully_connected: str, float_storage: str) -> dict[str, Any]:
    from bibench_deploy.targets.lce.storage import store_smaller

    path = Path(tflite)
    smaller = store_smaller(path.read_bytes(), fully_connected, float_storage)
    scratch = path.with_suffix(".smaller")
    with writing(scratch):
        scratch.write_bytes(smaller)
    scratch.replace(path)
    return {}


if __name__ == "__main__":
    _serve()
