"""BIB306 dilation: a convolution whose kernel skips numbers.

daBNN stores dilations and does not honour them.

Bad:   nn.Conv2d(…, dilation=2)                      # for daBNN
Good:  nn.Conv2d(…, dilation=1), with a larger kernel or a stride before it

Rests on: daBNN's BinConv2D, by experiment with its engine.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB306", "dilation")
