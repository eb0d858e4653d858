"""BIB309 binary-linear: a binary fully connected layer, which engines have not.

Binary kernels are convolutions. Export writes a binary linear layer as a 1×1 convolution, at no
cost; a layer by hand stays in float (larq's QuantDense does, behind LCE's converter).

Bad:   a QuantDense, converted as it is
Good:  conv(sign(x), sign(w[:, :, None, None])), or any binary linear layer through export

Rests on: LCE's operators and daBNN's layer types, whose only binary layer is a convolution.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB309", "binary-linear")
