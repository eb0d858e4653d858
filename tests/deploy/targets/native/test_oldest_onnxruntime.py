"""The oldest ONNX Runtime that is promised runs a binarized network as this environment's does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomlkit

from bibench_deploy.export.pipeline import export_source
from bibench_deploy.export.source import resolve_source
from bibench_deploy.targets.native import library
from bibench_deploy.targets.native.shared_library import OLDEST_RUNTIME

ROOT = Path(__file__).parents[4]
SCRIPT = Path(__file__).with_name("answer.py")


def test_what_is_installed_is_what_the_message_names() -> None:
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text())["project"]
    assert f"onnxruntime>={OLDEST_RUNTIME}" in project["dependencies"]


@pytest.mark.slow
def test_it_gives_the_same_numbers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "oldest"], check=True)
    python = tmp_path / "oldest" / "bin" / "python"
    packages = [f"onnxruntime=={OLDEST_RUNTIME}.0", "numpy<2"]
    command = [python, "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(command, check=True, capture_output=True)

    source = resolve_source(str(ROOT / "models" / "digits-resnet20-reactnet"))
    assert source.test_set is not None
    artifact = export_source(source, target="native", out=tmp_path / "net")
    images = tmp_path / "images.npy"
    np.save(images, source.test_set()[0])

    def run(program: Path | str, name: str) -> tuple[str, np.ndarray]:
        outputs = tmp_path / f"{name}.npy"
        files = [library(), artifact.model_path, images, outputs]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [program, SCRIPT, *files],
            check=False, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), np.load(outputs)

    oldest, found = run(python, "oldest")
    _, expected = run(sys.executable, "newest")
    assert oldest == f"{OLDEST_RUNTIME}.0"
    assert expected.shape == (360, 10)
    np.testing.assert_array_equal(found, expected)
