from __future__ import annotations

from bibench_deploy.reports import render


def test_text_as_people_read_it(demo, snapshot):
    assert render(demo, "text") == snapshot


def test_columns_line_up(demo):
    lines = render(demo, "text").splitlines()
    start = lines.index("Latency")
    header, *rows = lines[start + 1 : start + 16]
    column = header.index("Verdict")
    assert {row[column:].split()[0] for row in rows} == {"stable", "noisy"}


def test_a_noisy_row_has_a_mark_in_front(demo):
    marked = [line for line in render(demo, "text").splitlines() if line.startswith("! ")]
    assert len(marked) == 1
    assert " noisy " in marked[0]
