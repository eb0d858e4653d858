"""BIB511 several-outputs: a network of several outputs, or of none.

Bad:   return scores, boxes
Good:  return torch.cat([scores.flatten(1), boxes.flatten(1)], 1)

Rests on: this project's proof of parity and its runners, which compare one output.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB511", "several-outputs")
