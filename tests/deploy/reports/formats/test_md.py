from __future__ import annotations

from bibench_deploy.reports import build_report, render


def test_markdown_as_people_read_it(demo, snapshot):
    assert render(demo, "md") == snapshot


def test_a_name_can_neither_end_a_cell_nor_become_markup(write, header, artifact, cell):
    path = write(header(), artifact("m", algorithm="a|b <b>*c*"), cell("m", 1, 2.0))
    text = render(build_report([path]), "md")
    assert r"a\|b \<b\>\*c\*" in text
    assert "a|b" not in text
