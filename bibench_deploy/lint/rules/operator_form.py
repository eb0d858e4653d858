"""BIB506 operator-form: an operator that the engine has, with attributes that it has not.

A resize by cubic interpolation, a max pooling whose indices are read, a batch norm in training
mode: the operator is there, this form of it is not.

Bad:   F.interpolate(x, scale_factor=2, mode="bicubic")
Good:  F.interpolate(x, scale_factor=2, mode="bilinear")

Rests on: TensorFlow Lite's operators, as the checks under targets/lce/float_operators state them.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB506", "operator-form")
