"""BIB302 asymmetric-padding: the padding of a layer differs between its two sides or its two axes.

daBNN stores one padding for height and one for width; export for other engines keeps all four.

No rule speaks of PyTorch's padding at stride 2 on an even size, which in effect reads (1, 0) beyond
the edges and which LCE's converter mistakes for SAME: export turns the network by 180°, where it is
SAME, so nothing is wrong and nothing but one reversal of the input is paid
(docs/decisions/0002-a-network-turned-by-180-degrees.md).

Bad:   F.pad(x, (0, 1, 0, 1)) before a convolution   # for daBNN
Good:  nn.Conv2d(…, padding=1)

Rests on: BinConv2D and FpConv2D of daBNN's format, which read two numbers of padding.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB302", "asymmetric-padding")
