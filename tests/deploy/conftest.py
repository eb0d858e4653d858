"""Real .tflite files, a binarized one and its float twin, made once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bibench_deploy.artifact import Artifact, file_entry, write_manifest

# In a process of its own: TensorFlow takes seconds and hundreds of megabytes.
_MAKE_MODELS = """
import sys
from pathlib import Path

import larq
import larq_compute_engine
import tensorflow as tf

tf.keras.utils.set_random_seed(0)
for name in ("binary", "float"):
    x = inputs = tf.keras.layers.Input((8, 8, 3))
    x = tf.keras.layers.Conv2D(32, 3, padding="same")(x)
    if name == "binary":
        x = larq.layers.QuantConv2D(
            32, 3, padding="same", pad_values=0.0, use_bias=False,
            input_quantizer="ste_sign", kernel_quantizer="ste_sign",
        )(x)
    else:
        x = tf.keras.layers.Conv2D(32, 3, padding="same", use_bias=False)(x)
    x = tf.keras.layers.BatchNormalization()(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(10)(x))
    content = larq_compute_engine.convert_keras_model(model)
    Path(sys.argv[1], name + ".tflite").write_bytes(content)
"""


@pytest.fixture(scope="session")
def small_tflite_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with binary.tflite (one LceBconv2d) and float.tflite: (1, 8, 8, 3) to (1, 10)."""
    folder = tmp_path_factory.mktemp("tflite")
    subprocess.run(
        [sys.executable, "-c", _MAKE_MODELS, str(folder)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.fixture
def make_lce_artifact(small_tflite_models: Path) -> Callable[..., Artifact]:
    """make_lce_artifact(folder, name="tiny", has_twin=True): an exported folder to profile."""

    def write(folder: Path, name: str, file: str, role: str) -> Artifact:
        folder.mkdir(parents=True)
        shutil.copy(small_tflite_models / file, folder / "model.tflite")
        entry = file_entry(folder / "model.tflite")
        manifest = {
            "schema_version": 1,
            "kind": "bibench-artifact",
            "name": name,
            "target": "lce",
            "role": role,
            "files": {"model": entry},
            "model_sha256": entry["sha256"],
            "size_bytes": entry["size_bytes"],
        }
        return write_manifest(folder, manifest)

    def make(folder: Path, name: str = "tiny", has_twin: bool = True) -> Artifact:
        artifact = write(folder, name, "binary.tflite", "model")
        if has_twin:
            write(folder / "fp32", name, "float.tflite", "fp32_twin")
        return artifact

    return make
