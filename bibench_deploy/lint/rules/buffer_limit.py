"""BIB312 buffer-limit: a layer needs more room than the engine's fixed buffer has.

daBNN unpacks windows into a buffer of 128,000 words and writes past its end without a word when
min(32, words per filter) · output height · output width is larger: wrong numbers.

Bad:   a binary 3×3 layer of 96 channels on a map of 112×112   # for daBNN
Good:  a stride or a pooling before it

Rests on: daBNN's BinConv2D, by experiment with its engine.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB312", "buffer-limit")
