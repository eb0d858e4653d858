"""BIB304 non-square-map: the map of a layer is not as high as it is wide.

daBNN computes the width of some maps from their height.

Bad:   an input of 3×96×160                          # for daBNN
Good:  an input of 3×128×128

Rests on: daBNN's engine, by experiment.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB304", "non-square-map")
