"""Promises of every format that is found."""

from __future__ import annotations

import pytest

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.reports import build_report, format_names, render

FORMATS = format_names()


def test_the_formats_of_the_command_line_are_there():
    assert {"text", "json", "md", "html"} <= set(FORMATS)


def test_an_unknown_format_lists_the_known_ones(demo):
    with pytest.raises(UnknownNameError, match=r'unknown format "htm".*did you mean "html"'):
        render(demo, "htm")


@pytest.mark.parametrize("name", FORMATS)
def test_it_shows_models_accuracy_parity_findings_environment_and_command(demo, name):
    text = render(demo, name)
    for fact in ("resnet20 reactnet", "98.89", "BIB101", "Example CPU 2.50GHz", "out/my model"):
        assert fact in text


@pytest.mark.parametrize("name", FORMATS)
def test_it_renders_one_model_without_a_twin_without_parity_and_with_findings(
    name, write, header, artifact, cell
):
    finding = {
        "code": "BIB102",
        "rule": "sign-of-zero",
        "severity": "error",
        "layer": "conv1",
        "message": "sign of zero",
        "hint": "",
    }
    model = artifact("m", parity=None, findings=(finding,))
    text = render(build_report([write(header(), model, cell("m", 1, 2.0))]), name)
    assert "BIB102" in text
    assert "sign of zero" in text


@pytest.mark.parametrize("name", FORMATS)
def test_it_renders_an_artifact_that_was_never_measured(name, write, header, artifact):
    assert "resnet20" in render(build_report([write(header(), artifact("m"))]), name)


@pytest.mark.parametrize("name", FORMATS)
def test_it_renders_a_single_block_without_an_interval(name, write, header, artifact, cell):
    block, _ = cell("m", 1, 2.0)
    text = render(build_report([write(header(), artifact("m"), block)]), name)
    assert "noisy" in text


@pytest.mark.parametrize("name", FORMATS)
def test_it_marks_noisy_cells_and_untrained_weights(demo, name):
    text = render(demo, name)
    assert "noisy" in text
    assert "untrained weights: latency and size only" in text or '"trained": false' in text


@pytest.mark.parametrize("name", FORMATS)
def test_it_shows_what_is_missing_from_a_results_file(name, write, header, artifact, cell):
    path = write(header(), artifact("m"), cell("m", 1, 2.0))
    path.write_text(path.read_text(encoding="utf-8") + '{"kind": "ce', encoding="utf-8")
    assert "cut off in the middle" in render(build_report([path]), name)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_results_give_the_same_bytes(demo, name):
    assert render(demo, name) == render(demo, name)
