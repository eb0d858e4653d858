"""BIB204 mean-shift: a constant per channel is added to the numbers before their sign.

ReActNet's RSign moves the threshold of each channel. Larq Compute Engine runs it as one ADD, or
folds it into the batch norm before it. daBNN's binary convolution binarizes its input at 0, and
an addition in place changes what a shortcut reads as well: the benchmark counts it as not
supported there.

Bad:   conv(sign(x + beta), sign(w))                 # for daBNN
Good:  conv(sign(x), sign(w))                        # bnn, dorefa, bireal, recu …

Rests on: Table 4 of BiBench (ICML 2023), activation mean-shift; daBNN's Affine, which
overwrites its input.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB204", "mean-shift")
