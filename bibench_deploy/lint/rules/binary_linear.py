"""BIB309 binary-linear: a binary fully connected layer in a form that the engine has not.

Binary kernels are convolutions. Export writes a binary linear layer as a 1×1 convolution where
the engine can hold its shape.

Bad:   F.linear(sign(x), sign(w)) over a shape that the engine cannot pad
Good:  conv(sign(x), sign(w[:, :, None, None]))

Rests on: LCE and daBNN, whose only binary layer is a convolution.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB309", "binary-linear")
