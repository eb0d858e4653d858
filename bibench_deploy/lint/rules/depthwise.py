"""BIB308 depthwise: a binary convolution of one channel per group.

A word of 32 or 64 bits holds one that is useful, and the layer runs as an operator for each
channel.

Bad:   conv(sign(x), sign(w), groups=channels)
Good:  a float depthwise convolution, or a binary one over all channels

Rests on: LCE's bconv2d and daBNN's BinConv2D, which pack along channels.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB308", "depthwise")
