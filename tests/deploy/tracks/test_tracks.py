"""Promises of every track that is found."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

from bibench_deploy import tracks

TRACKS = [module.name for module in pkgutil.iter_modules(tracks.__path__) if module.name[0] != "_"]


def test_the_hardware_track_is_there():
    assert "hardware" in TRACKS


@pytest.mark.parametrize("name", TRACKS)
def test_it_has_a_row_in_the_docs_and_a_source(name):
    root = Path(__file__).parents[3]
    assert f"| `{name}` |" in (root / "docs" / "tracks.md").read_text(encoding="utf-8")
    source = (root / "bibench_deploy" / "tracks" / f"{name}.py").read_text(encoding="utf-8")
    assert "Source:" in source
