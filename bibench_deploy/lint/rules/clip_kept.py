"""BIB314 clip-kept: a clip that something besides signs reads, on an engine that has none.

A Hardtanh before signs changes no sign and is dropped. One that a shortcut or a pooling reads as
well has to be computed. daBNN has no clip: export writes it as Affine, Relu, Affine, Relu, Affine,
five passes over the map for one, and lets signs read what is before it.

Bad:   h = hardtanh(x); conv(sign(h), …) + h         # for daBNN
Good:  h = hardtanh(x); conv(sign(h), …) + x

Rests on: daBNN's layer types, which hold Relu and PRelu and no clip.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB314", "clip-kept")
