import re

import pytest

from bibench_deploy.cli import _layer_table
from bibench_deploy.cli._layer_table import layer_table


def layer(name: str, **changes) -> dict:
    return {
        "name": name, "kind": "binary_conv", "weight_shape": [16, 16, 3, 3], "intended_bits": 1,
        "intended_bytes": 576, "actual_bits": 1, "actual_bytes": 704, "kernel": "LceBconv2d",
        "fused": ["scale", "shift"], **changes,
    }  # fmt: skip


FLOAT = {
    "kind": "float_conv", "weight_shape": [16, 3, 3, 3], "intended_bits": 32,
    "intended_bytes": 1728, "actual_bits": 32, "actual_bytes": 1792, "kernel": "CONV_2D",
    "fused": [],
}  # fmt: skip
LAYERS = [
    layer("stem", **FLOAT),
    *(layer(f"stages.0.{index}.conv") for index in range(4)),
    layer("a_layer_with_a_name_far_longer_than_any_table_should_be_wide.conv1"),
    layer("lost", **FLOAT | {"kernel": None, "actual_bits": None, "actual_bytes": None}),
]


def test_columns_are_aligned_and_equal_layers_stand_together(snapshot) -> None:
    assert layer_table(LAYERS) == snapshot


def test_two_equal_layers_keep_their_own_rows() -> None:
    rows = layer_table([layer("one"), layer("two")]).splitlines()
    assert [row.split()[0] for row in rows] == ["layer", "one", "two"]


def test_layers_that_differ_in_bytes_alone_are_not_drawn_together() -> None:
    layers = [layer(f"conv{size}", actual_bytes=size) for size in (1, 2, 3)]
    assert len(layer_table(layers).splitlines()) == 4


def test_a_long_name_keeps_both_its_ends() -> None:
    text = layer_table([layer("first." + "x" * 80 + ".last")])
    assert "first." in text
    assert ".last" in text
    assert max(map(len, text.splitlines())) < 120


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_gets_one_row_a_layer_as_wide_as_it_is(
    columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_layer_table.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    text = re.sub("\x1b\\[[0-9;]*m", "", layer_table([*LAYERS, layer("[red]not markup[/red]")]))
    assert max(map(len, text.splitlines())) <= columns
    # The heading, the stem, five alike, the lost one and the one that looks like markup.
    assert len(text.splitlines()) == 5
    assert "[red]" in text
    assert ("(scale, shift)" in text) == (columns == 120)


def test_a_network_without_layers_is_a_heading_alone() -> None:
    assert layer_table([]).split() == ["layer", "weights", "became", "bits", "bytes", "intended"]
