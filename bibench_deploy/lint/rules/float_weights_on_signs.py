"""BIB103 float-weights-on-signs: a layer of weights that are not binary reads signs.

The layer was meant to be binary and runs as a float convolution: 32 times the storage, and
slower than the same layer on float inputs, since the signs are unpacked for it first. One
magnitude per output channel is what a binary layer folds; two in one channel are none.

Bad:   conv(sign(x), w)                              # w: any floats
Good:  conv(sign(x), sign(w) * alpha[:, None, None, None])

Rests on: LCE's converter, which leaves LceDequantize and CONV_2D for such a layer (tests of the
target lce); daBNN's BinConv2D, whose weights are bits.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB103", "float-weights-on-signs")
