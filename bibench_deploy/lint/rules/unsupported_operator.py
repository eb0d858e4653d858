"""BIB505 unsupported-operator: an operator that the engine has not.

Bad:   nn.LSTM, torch.linalg.det, a branch on the input's numbers
Good:  convolutions, linear layers, normalisations, pointwise functions, pooling, reshapes

Rests on: the operators of TensorFlow Lite and LCE that export writes (one entry each under
targets/lce/float_operators), and daBNN's layer types.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB505", "unsupported-operator")
