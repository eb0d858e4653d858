"""BIB508 tensor-type: numbers of a type that the engine does not compute with.

Channel-wise scales and everything else in float are FP32 on every engine here; a network in
half or double precision is converted before it is exported. A scale kept in 16 bits is not
the form that was trained.

Bad:   model.half(), model.double()
Good:  model.float()

Rests on: Table 4 of BiBench (ICML 2023), form FP32; TensorFlow Lite's float kernels.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB508", "tensor-type")
