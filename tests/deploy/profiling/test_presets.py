from __future__ import annotations

from pathlib import Path

import pytest

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.profiling.presets import PRESETS, Preset, find_preset
from bibench_deploy.profiling.statistics import MIN_BLOCKS


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_every_preset_measures_enough_blocks_to_be_called_stable(preset: Preset) -> None:
    assert preset.blocks >= MIN_BLOCKS
    assert 0 < preset.warmup_min_s <= preset.warmup_max_s
    assert 0 < preset.min_s <= preset.max_s < preset.timeout_s


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_the_method_page_states_every_preset(preset: Preset) -> None:
    text = (Path(__file__).parents[3] / "docs" / "method.md").read_text(encoding="utf-8")
    row = (
        f"| {preset.name} | {preset.blocks} | {preset.warmup_min_s:g} s to "
        f"{preset.warmup_max_s:g} s | at least {preset.min_runs} and {preset.min_s:g} s, "
        f"at most {preset.max_s:g} s |"
    )
    assert row in text


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r'"quik" \(did you mean "quick"\?\)'):
        find_preset("quik")
