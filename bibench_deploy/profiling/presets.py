"""How long and how often a sweep measures; docs/method.md gives the reasons."""

from __future__ import annotations

from dataclasses import dataclass

from bibench_deploy.errors import UnknownNameError


@dataclass(frozen=True)
class Preset:
    """The effort spent on each cell.

    Attributes:
        name: as after `--preset`.
        blocks: fresh processes for each cell.
        warmup_min_s: shortest warm-up of a block.
        warmup_max_s: after this the warm-up stops, settled or not.
        min_runs: fewest samples of a block, unless `max_s` comes first.
        min_s: shortest time that a block takes samples.
        max_s: longest time that a block takes samples.
    """

    name: str
    blocks: int
    warmup_min_s: float
    warmup_max_s: float
    min_runs: int
    min_s: float
    max_s: float

    @property
    def timeout_s(self) -> float:
        """After this long a block hangs, even if one inference takes half a minute."""
        return 2 * (self.warmup_max_s + self.max_s) + 300


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("quick", 3, 0.2, 2.0, 20, 0.5, 10.0),
        Preset("standard", 9, 0.5, 5.0, 50, 1.0, 30.0),
        # Half an hour for each cell, in which the device has no rest.
        Preset("sustained", 60, 0.5, 5.0, 50, 30.0, 60.0),
    )
}

# A pass for the peak memory: as many inferences as it takes to have asked for all of it.
MEMORY_PASS = Preset("memory", 1, 0.0, 0.0, 3, 0.0, 10.0)


def find_preset(name: str) -> Preset:
    """Look one preset up by name.

    Raises:
        UnknownNameError: there is no such preset.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, list(PRESETS))
    return PRESETS[name]
