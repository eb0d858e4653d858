"""BIB314 clip-kept: a clip that something besides signs reads, on an engine that has none.

A Hardtanh before signs changes no sign and is dropped. One that a shortcut reads as well has to
be computed. daBNN has no clip: it becomes two ReLUs and the affine steps around them, each a pass
over the map.

Bad:   h = hardtanh(x); conv(sign(h), …) + h         # for daBNN
Good:  h = hardtanh(x); conv(sign(h), …) + x

Rests on: daBNN's layer types, which hold Relu and PRelu and no clip.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB314", "clip-kept")
