"""BIB310 channel-count: the number of input channels does not fit the engine's words.

Bits are packed along channels into words: of 32 on Larq Compute Engine, of 64 on daBNN. What is
left of the last word is stored and multiplied all the same. daBNN needs W·C in multiples of 4
besides, wherever a pooling, an addition or an affine step touches the map, and an even width
for 64 channels.

Bad:   a stage of 15 channels
Good:  a stage of 32, 64 or 128 channels

Rests on: LCE's bit-packed filters, counted in the file (targets/lce/residency.py); daBNN's
kernels for ARMv7 and ARMv8, by experiment with its engine.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB310", "channel-count")
