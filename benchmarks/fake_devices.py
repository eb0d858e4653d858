"""What a sweep costs beside the measuring: 8 devices at once, 100 cells each. Promise: 10 s."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bibench_deploy.artifact import file_entry
from bibench_deploy.devices.transports._transport import CommandResult
from bibench_deploy.devices.transports.fake import FakeTransport
from bibench_deploy.profiling import session

DEVICES, CELLS, SAMPLES = 8, 100, 50

_PROBED = """
@system
Linux
@machine
x86_64
@python
3.11.7
larq-compute-engine 0.16.0
numpy 1.26.4
"""
_PRINTED = json.dumps(
    {
        "samples_ms": [1.0 + number / 1e4 for number in range(SAMPLES)], "warmup_count": 10,
        "warmup_settled": True, "other_load": 0.0, "init_ms": 2.0, "peak_memory_mib": 50.0,
        "larq_compute_engine": "0.16.0", "extension_sha256": "00", "python": "3.11.7",
        "numpy": "1.26.4",
    }
)  # fmt: skip


class _Board(FakeTransport):
    """Answers at once, as often as it is asked."""

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> CommandResult:  # noqa: ARG002 - the signature of Transport
        self.commands.append(list(arguments))
        return CommandResult(0, _PROBED if len(self.commands) == 1 else _PRINTED, "")


def measure() -> str:
    """Wall time of all sweeps, each with the preset quick and a results file of its own."""
    before = Path.cwd()
    session.open_transport = _Board
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            _write_artifact(Path("net"))
            names = [f"board{number}" for number in range(DEVICES)]
            tables = (f'[{name}]\ntransport = "fake"\n' for name in names)
            Path("devices.toml").write_text("".join(tables), encoding="utf-8")
            begun_at = time.perf_counter()
            with ThreadPoolExecutor(DEVICES) as pool:
                blocks = sum(pool.map(_sweep, names))
            seconds = time.perf_counter() - begun_at
        finally:
            os.chdir(before)
    return (
        f"{DEVICES} fake devices × {CELLS} cells, {blocks:,} blocks: {seconds:.1f} s (promise 10 s)"
    )


def _sweep(device: str) -> int:
    run = session.profile_artifacts([Path("net")], device, range(1, CELLS + 1))
    return len(run.results.blocks)


def _write_artifact(folder: Path) -> None:
    folder.mkdir()
    model = folder / "model.tflite"
    model.write_bytes(b"no device reads this")
    entry = file_entry(model)
    manifest = {
        "schema_version": 1, "kind": "bibench-artifact", "name": "net", "target": "lce",
        "role": "model", "files": {"model": entry}, "model_sha256": entry["sha256"],
        "size_bytes": entry["size_bytes"], "layers": [],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
