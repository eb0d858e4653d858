from __future__ import annotations

import pytest

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.reports import render, write_report


def test_the_format_is_what_the_file_name_ends_in(demo, tmp_path):
    path = write_report(demo, tmp_path / "new" / "report.json")
    assert path.read_text(encoding="utf-8") == render(demo, "json")


def test_a_named_format_wins_over_the_file_name(demo, tmp_path):
    path = write_report(demo, tmp_path / "report.txt", "text")
    assert path.read_text(encoding="utf-8") == render(demo, "text")


def test_nothing_is_left_behind_when_rendering_fails(demo, tmp_path):
    with pytest.raises(UnknownNameError):
        write_report(demo, tmp_path / "report.pdf")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".jsonl"] == []
