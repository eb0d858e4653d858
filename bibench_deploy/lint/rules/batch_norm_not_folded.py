"""BIB403 batch-norm-not-folded: a batch norm that folds into no layer.

Directly behind a convolution a batch norm is its multiplier and bias, and costs nothing. Behind a
pooling, an addition, an activation or a reshape it is a multiplication and an addition over the
whole map.

Bad:   batch_norm(F.max_pool2d(conv(sign(x), sign(w)), 2))
Good:  F.max_pool2d(batch_norm(conv(sign(x), sign(w))), 2)

Rests on: LCE's converter, which leaves MUL and ADD for such a batch norm (tests of the target
lce).
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB403", "batch-norm-not-folded")
