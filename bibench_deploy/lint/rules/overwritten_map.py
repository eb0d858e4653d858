"""BIB406 overwritten-map: an operator writes over a map that is still to be read.

daBNN adds, multiplies and rectifies in place. Where another operator still reads the map
afterwards, or where it is the network's input, export makes a copy of it first: one pass over
the map.

Bad:   relu(x) + 2 * x                               # for daBNN
Good:  relu(x) + conv(x)

Rests on: daBNN's Affine, Relu, PRelu and Add, whose output is the memory of their first input.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB406", "overwritten-map")
