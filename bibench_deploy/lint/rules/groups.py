"""BIB305 groups: a binary convolution of more groups than the engine holds.

Each group sees few channels, so words of 32 or 64 bits are mostly padding. Larq Compute Engine's
default kernel fails on grouped convolutions when it allocates, so export writes one binary
operator for each group; daBNN has no groups.

Bad:   conv(sign(x), sign(w), groups=64)
Good:  conv(sign(x), sign(w))

Rests on: LCE's kernel, which fails at AllocateTensors for groups; daBNN's format, which has no
field for them.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB305", "groups")
