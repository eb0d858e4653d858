from __future__ import annotations

import json

import pytest

from bibench_deploy.reports import format_names, published_hardware_track, render


@pytest.mark.parametrize("name", format_names())
def test_every_format_shows_the_published_and_the_recomputed_figures(name):
    text = render(published_hardware_track(), name)
    for fact in ("5.45", "15.6", "26", "4.74", "123.263"):
        assert fact in text, fact


def test_every_published_cell_is_in_the_table_and_in_the_data():
    document = published_hardware_track()
    assert len(document.tables[1].rows) == len(document.data["cells"]) == 372
    assert len(document.data["scores"]) == 14 + 14 + 12


def test_the_json_has_a_kind_of_its_own():
    content = json.loads(render(published_hardware_track(), "json"))
    assert content["kind"] == "bibench-published-hardware-track"
    assert content["means"][0]["speed_up"] == pytest.approx(5.2585, abs=5e-5)
