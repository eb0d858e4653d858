"""BIB308 depthwise: a binary convolution of one channel per group.

One bit per position leaves nothing to pack: a word holds one useful bit, and the engines'
binary kernels read words.

Bad:   conv(sign(x), sign(w), groups=channels)
Good:  a float depthwise convolution, or a binary one over all channels

Rests on: LCE's bconv2d and daBNN's BinConv2D, which pack along channels.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB308", "depthwise")
