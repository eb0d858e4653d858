import os
import shutil
from pathlib import Path

import pytest
import typer

from bibench_deploy.cli._inputs import default_out, find_source, parse_shape

MODEL = Path(__file__).parents[3] / "models" / "digits-resnet20-bnn"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1,3,224,224", (1, 3, 224, 224)),
        ("1, 64", (1, 64)),
        ("1,3,40", (1, 3, 40)),
        ("1,1,1,1", (1, 1, 1, 1)),
    ],
)
def test_a_shape_is_read_from_numbers_and_commas(text, shape) -> None:
    assert parse_shape(text) == shape


OTHERS = [
    "", "1", "1,3,224,224,1", "1,3,0", "1x3x8x8", "1,3,0,8", "1,,8,8", "1,-3,8,8", "a,b",
    "1,3,8.5,8",
]  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_a_shape_of_another_form_is_refused_with_an_example(text) -> None:
    with pytest.raises(typer.BadParameter, match="is not N,C,H,W, N,C,L or N,C, such as 1,3"):
        parse_shape(text)


def test_the_default_folder_is_named_after_source_and_target() -> None:
    assert default_out("resnet20-bnn-digits", "lce") == Path("out/resnet20-bnn-digits-lce")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/root", "..", "", ".", "a\nb", "x" * 300])
def test_the_default_folder_is_one_folder_under_out_whatever_the_name(name) -> None:
    folder = default_out(name, "lce")
    assert folder.parent == Path("out")
    assert folder.name.endswith("-lce")
    assert len(folder.name) < 200
    assert folder.name.isprintable()


def test_an_input_shape_that_is_not_used_is_said(networks, capsys) -> None:
    find_source("clean.onnx", "1,3,8,8")
    assert "--input-shape is left out" in capsys.readouterr().err


def test_without_a_source_the_latest_run_is_taken_and_said(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old")):
        shutil.copytree(MODEL, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "run.json", (100 - age, 100 - age))
    assert find_source(None, None).kind == "run"
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"source: {Path('runs/new')} (the latest run)\n")


def test_a_source_that_was_named_is_not_announced(networks, capsys) -> None:
    assert find_source("clean.onnx", None).name == "clean"
    assert capsys.readouterr().err == ""
