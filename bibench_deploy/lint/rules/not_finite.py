"""BIB513 not-finite: weights that are infinite or no numbers.

A training that diverged leaves NaN behind, and one of them in a weight makes every answer NaN.

Bad:   weight = [[0.5, nan], …]
Good:  a lower learning rate, and the training anew

Rests on: IEEE 754, by which no sum with NaN is a number; this project's proof, which refuses it.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB513", "not-finite")
