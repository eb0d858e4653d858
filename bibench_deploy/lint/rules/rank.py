"""BIB509 rank: a tensor of more or fewer dimensions than the engine holds.

Bad:   x.reshape(n, 2, 2, 2, 2, c), an input [N, C, D, H, W], an output without dimensions
Good:  tensors [N, C, H, W], [N, C, L] or [N, C]

Rests on: TensorFlow Lite's kernels, which take at most five dimensions for arithmetic and six for
reshapes; daBNN's tensors of rank 4.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB509", "rank")
