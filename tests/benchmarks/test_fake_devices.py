"""benchmarks/fake_devices.py sweeps devices that answer as real ones do."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_cell_of_every_device_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    benchmark = importlib.import_module("benchmarks.fake_devices")
    # The benchmark puts another one in its place, and this puts the first one back.
    session = benchmark.session
    monkeypatch.setattr(session, "open_transport", session.open_transport)
    monkeypatch.setattr(benchmark, "DEVICES", 2)
    monkeypatch.setattr(benchmark, "CELLS", 3)
    assert "2 fake devices × 3 cells, 18 blocks: " in benchmark.measure()
