"""The command line in this process, and in a process of its own where that matters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
SIGN = "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)"
BAD = {
    "clean": f"{SIGN}  y = Conv(s, w)",
    "warning": "h = Add(x, quarter)  s = Sign(h)  y = Conv(s, w)",
    "error": f"{SIGN}  c = Conv(s, w)  y = Mul(c, rows)",
}

# What runs `bibench` with some packages absent, as on a machine that has not got them.
_BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in BLOCKED or name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Absent())
from bibench_deploy.__main__ import main
main()
"""


@pytest.fixture
def bibench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """bibench("lint", "model.onnx"): the result, with exit_code, stdout and stderr."""
    from bibench_deploy.cli.app import app

    # Plain text: help would be drawn with boxes as wide as this terminal.
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> object:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def bibench_without() -> Callable[..., subprocess.CompletedProcess[str]]:
    """bibench_without("torch,larq", "lint", …): in a process that cannot import these."""

    def run(packages: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _BLOCKED, packages, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def networks(make_proto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with clean.onnx, warning.onnx and error.onnx."""
    for name, nodes in BAD.items():
        proto = make_proto(
            f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}",
            w=SIGNS,
            rows=np.linspace(0.5, 2, 6).reshape(6, 1),
            zero=0.0,
            one=1.0,
            minus=-1.0,
            quarter=0.25,
        )
        onnx.save(proto, tmp_path / f"{name}.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path
