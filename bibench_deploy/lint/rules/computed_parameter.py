"""BIB507 computed-parameter: what the engine keeps as a constant is computed from the input.

Weights, paddings and sizes are part of an engine's file. A kernel that another layer computes
(hypernetworks, dynamic convolution) cannot be.

Bad:   F.conv2d(x, self.kernel_of(x))
Good:  F.conv2d(x, self.weight)

Rests on: TensorFlow Lite's converter and daBNN's format, which hold weights as tensors of
the file.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB507", "computed-parameter")
