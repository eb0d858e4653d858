"""BIB404 float-output: a binary layer that writes floats, which become signs again.

Larq Compute Engine writes bits instead of floats between two binary layers, a thirty-second of
the memory traffic, but not from a layer that is padded with zeros.

Bad:   F.conv2d(sign(x), sign(w), padding=1) before the next sign
Good:  F.conv2d(sign(F.pad(x, (1, 1, 1, 1), value=1.0)), sign(w)), trained that way

Rests on: LCE's converter (larq-compute-engine 0.16, by experiment): zero padding forbids
bit-packed output.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB404", "float-output")
