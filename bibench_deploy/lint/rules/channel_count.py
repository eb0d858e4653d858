"""BIB310 channel-count: the number of input channels does not fit the engine's words.

Bits are packed along channels into words. daBNN needs W·C in multiples of 4 wherever a pooling,
an addition or an affine step touches the map, and an even width for 64 channels.

Bad:   a stage of 15 channels on a map of width 7    # for daBNN
Good:  a stage of 16, 32, 64 or 128 channels

Rests on: daBNN's kernels for ARMv7 and ARMv8, by experiment with its engine.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB310", "channel-count")
