from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.reports import build_report, plots

DRAWN = (
    plots.latency_plots,
    plots.speedup_plots,
    plots.hardware_plots,
    plots.size_plots,
    plots.accuracy_plots,
)


def all_plots(report):
    return [plot for draw in DRAWN for plot in draw(report)]


def texts(plot):
    root = ElementTree.fromstring(plot.svg)  # noqa: S314 - we drew it
    return [element.text for element in root.iter() if element.tag.endswith("text")]


def test_each_family_has_a_panel_of_its_own(demo):
    titles = [plot.title for plot in plots.latency_plots(demo)]
    assert titles == ["resnet20, 32×32", "resnet18, 224×224"]


def test_each_device_has_a_panel_of_its_own(write, header, artifact, cell):
    first = write(header(), artifact("m"), cell("m", 1, 2.0), name="a.jsonl")
    second = write(header(), artifact("m"), cell("m", 1, 4.0, device="board"), name="b.jsonl")
    titles = [plot.title for plot in plots.latency_plots(build_report([first, second]))]
    assert sorted(titles) == ["resnet20, 32×32, on board", "resnet20, 32×32, on local"]


def test_colours_come_from_the_page_alone(demo):
    for plot in all_plots(demo):
        assert set(re.findall(r"#[0-9a-fA-F]{6}\b", plot.svg)) <= {"#000000"}, plot.title
        assert "var(--" in plot.svg


def test_drawing_twice_gives_the_same_bytes(demo):
    assert all_plots(demo) == all_plots(demo)


def test_a_reader_of_words_gets_the_numbers(demo):
    latency = plots.latency_plots(demo)[0].description
    assert "reactnet 3.61 ms at 1 thread" in latency
    assert "reactnet 3.30 ms at 2 threads (noisy)" in latency
    assert "bnn 1 thread 0.82×" in plots.speedup_plots(demo)[0].description
    assert "reactnet 61.3 kB, 17.8× smaller" in plots.size_plots(demo)[0].description
    assert "reactnet 98.89 %" in plots.accuracy_plots(demo)[0].description


def test_the_hardware_track_is_drawn_beside_what_the_paper_prints(demo):
    (plot,) = plots.hardware_plots(demo)
    assert "bnn, LCE overall 13.1×" in plot.description
    assert "bnn, BiBench, printed overall 11.7×" in plot.description


def test_published_latencies_of_the_same_chip_are_drawn_dotted(write, header, artifact, cell):
    path = write(
        header(environment={"machine": "aarch64"}),
        artifact("twin", role="fp32_twin", architecture="resnet18", binary=0),
        artifact("model", architecture="resnet18", twin="twin"),
        *(cell("model", n, 80.0, device="pi4") for n in (1, 3)),
        *(cell("twin", n, 440.0, device="pi4") for n in (1, 3)),
    )
    report = build_report([path])
    (plot,) = plots.latency_plots(report)
    assert "dotted: what BiBench publishes for this chip" in plot.note
    assert "reactnet, published 82.4 ms at 1 thread" in plot.description
    assert "FP32, published 449 ms at 1 thread" in plot.description
    # The axis has the thread counts that were measured; the paper has no 3 threads.
    assert "at 2 threads" not in plot.description
    (track,) = plots.hardware_plots(report)
    assert "reactnet, BiBench, recomputed speed-up" in track.description


def test_noisy_cells_are_announced_where_they_are_drawn_hollow(demo):
    assert "hollow marks are noisy cells" in plots.latency_plots(demo)[0].note
    assert "hollow" not in plots.latency_plots(demo)[1].note
    assert "hollow bars rest on a noisy cell" in plots.speedup_plots(demo)[0].note


def test_untrained_weights_are_announced_on_every_panel(demo):
    for draw in (plots.latency_plots, plots.speedup_plots, plots.size_plots):
        assert "untrained weights: latency and size only" in draw(demo)[1].note


def test_there_is_no_accuracy_panel_without_an_accuracy(demo):
    assert [plot.title for plot in plots.accuracy_plots(demo)] == ["resnet20, 32×32"]


def test_axes_start_at_zero_and_carry_units(demo):
    words = texts(plots.latency_plots(demo)[0])
    assert {"0", "threads", "latency, ms (p50)"} <= {word.strip() for word in words}


def test_names_are_drawn_as_they_are(write, header, artifact, cell):
    name = "a$b$ <i>&"
    path = write(header(), artifact("m", algorithm=name), cell("m", 1, 2.0))
    (plot,) = plots.latency_plots(build_report([path]))
    assert name in texts(plot)


def test_a_script_that_the_plot_font_lacks_is_no_warning(write, header, artifact, cell):
    path = write(header(), artifact("m", algorithm="二値"), cell("m", 1, 2.0))
    assert all_plots(build_report([path]))


def test_a_long_name_is_shortened(write, header, artifact, cell):
    path = write(header(), artifact("m", algorithm="x" * 300), cell("m", 1, 2.0))
    (plot,) = plots.latency_plots(build_report([path]))
    assert max(len(word) for word in texts(plot)) < 30


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"the HTML report needs matplotlib.*\.\[plots\]"):
        plots.check_matplotlib()


def test_a_long_sweep_shows_its_drift_and_a_short_one_does_not(demo, write, header, artifact, cell):
    assert plots.drift_plots(demo) == ()
    block, _ = cell("m", 1, 10.0)
    path = write(
        header(preset="sustained"),
        artifact("m"),
        *(block | {"block": n, "samples_ms": [10.0 + 0.1 * n] * 3} for n in range(60)),
    )
    (plot,) = plots.drift_plots(build_report([path]))
    # The first third is about 11 ms, the last block 15.9.
    assert plot.description == "1 thread ends at 145 %"
    assert "block, in the order in which they ran" in texts(plot)


def test_an_interval_without_end_leaves_the_marks_apart(write, header, artifact, cell):
    cells = (cell("a", 1, 2.0, interval=200), cell("b", 1, 4.0))
    path = write(header(), artifact("a"), artifact("b", algorithm="bnn"), *cells)
    (plot,) = plots.latency_plots(build_report([path]))
    assert "cut off above: an interval reaches 402 ms" in plot.note
    numbers = [float(word) for word in texts(plot) if word.strip().isdigit()]
    assert 4 < max(numbers) < 10
