from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.reports import build_report, render, wording

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would find: tags with attributes, ids, and the text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def page(demo):
    return Page(render(demo, "html"))


def test_every_tag_is_closed(page):
    assert page.open == []


def test_nothing_is_fetched_and_no_script_but_the_one_that_sorts_tables_runs(page):
    assert page.named("script") == [{}]
    assert not page.named("link")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value is not None
                assert value.startswith("#"), (tag, value)


def test_styles_reach_for_nothing_outside(demo):
    html = render(demo, "html")
    assert "@import" not in html
    assert all(found == "#" for found in re.findall(r"url\((.)", html))


def test_ids_are_unique_and_references_resolve(page):
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    used = [a["xlink:href"] for _, a in page.tags if a.get("xlink:href")]
    assert {reference.removeprefix("#") for reference in used} <= set(ids)


def test_the_headlines_lead_with_size_parity_and_accuracy(page):
    text = page.text
    for headline in (
        "Size 17.8× smaller than its FP32 twin: 61.3 kB against 1.09 MB",
        "Parity 100 % same top-1 in PyTorch, ONNX Runtime and LCE on 8 seeded inputs",
        "18 of 18 binary convolutions run as LceBconv2d",
        "Flip rate 0 %",
        "Accuracy 98.89 % resnet20 reactnet on 360 held-out images of digits",
        "resnet20 fp32 98.06 %",
    ):
        assert headline in text
    assert text.index("Size 17.8×") < text.index("Parity 100 %") < text.index("Accuracy 98.89")


def test_the_host_check_note_is_there_on_x86(page):
    assert wording.HOST_CHECK_TITLE in page.text


def test_the_host_check_note_is_absent_on_a_board(write, header, artifact, cell):
    path = write(header(environment={"machine": "aarch64"}), artifact("m"), cell("m", 1, 2.0))
    assert wording.HOST_CHECK_TITLE not in Page(render(build_report([path]), "html")).text


def test_names_from_a_file_cannot_become_markup(write, header, artifact, cell):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    model = artifact("m", algorithm=evil, name=evil, architecture=evil, accuracy=50.0)
    model["manifest"]["source"]["dataset"] = evil
    model["manifest"]["findings"] = [
        dict.fromkeys(("code", "rule", "layer", "message", "hint"), evil) | {"severity": "info"}
    ]
    path = write(
        header(run=evil, command=["bibench", evil], environment={"cpu": evil}),
        model,
        cell("m", 1, 2.0, reason=evil, note=evil, verdict="noisy"),
    )
    page = Page(render(build_report([path]), "html"))
    assert page.named("script") == [{}]
    assert not page.named("img")
    assert evil in page.text


def test_plots_have_a_text_alternative(page):
    images = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(images) == 8
    assert all(len(image["aria-label"]) > 40 for image in images)
    assert len(page.named("figcaption")) == len(images)


def test_tables_have_captions_and_headers_with_a_scope(page):
    assert len(page.named("caption")) == len(page.named("table")) == 8
    assert all(header.get("scope") in ("row", "col") for header in page.named("th"))


def test_noisy_rows_are_marked(page):
    flagged = [row for row in page.named("tr") if row.get("class") == "flagged"]
    assert len(flagged) == 1
    assert "noisy, so no result" in page.text


def test_an_untrained_headline_shows_no_accuracy(write, header, artifact, cell):
    path = write(header(), artifact("m", accuracy=10.0, trained=False), cell("m", 1, 2.0))
    text = Page(render(build_report([path]), "html")).text
    assert "Accuracy none untrained weights: latency and size only" in text
    assert "10.00 %" not in text


def test_parity_that_was_skipped_is_no_pass(write, header, artifact, cell):
    path = write(header(), artifact("m", parity=None), cell("m", 1, 2.0))
    assert "Parity not checked" in Page(render(build_report([path]), "html")).text


def test_without_matplotlib_the_page_names_the_extra_and_the_rest_works(demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError):
        render(demo, "html")
    for name in ("text", "json", "md"):
        assert render(demo, name)


def _luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_and_series_stand_out_from_the_paper(demo, mode):
    blocks = re.findall(r":root \{(.*?)\}", render(demo, "html"), flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[mode]))
    text = ["ink", "muted", "warning", *(f"series-{number}" for number in (1, 2, 3, 4))]
    for paper in ("paper", "raised"):
        for name in text:
            # WCAG 2.2 asks 4.5 of text; the series' names are written in their colours.
            assert _contrast(colours[name], colours[paper]) >= 4.5, (name, paper)
    assert _contrast(colours["warning"], colours["warning-paper"]) >= 4.5


def test_parity_below_all_inputs_is_shown_as_a_warning_with_its_cause(
    write, header, artifact, cell
):
    step = {
        "max_abs_error": 0.12,
        "max_abs_error_same_signs": 3e-8,
        "top1_agreement": 0.625,
        "flip_rate": 0.002,
        "unexplained_flips": 0,
    }
    parity = {"inputs": 8, "seed": 0, "torch_to_onnx": None, "onnx_to_target": step}
    path = write(header(), artifact("m", parity=parity), cell("m", 1, 2.0))
    page = Page(render(build_report([path]), "html"))
    assert "with equal signs 3.0e-08 Unexplained flips 0" in page.text
    assert [p["class"] for p in page.named("p") if "figure" in (p.get("class") or "")] == [
        "figure accent",
        "figure warning",
        "figure muted",
    ]
