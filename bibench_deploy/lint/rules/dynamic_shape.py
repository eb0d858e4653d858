"""BIB502 dynamic-shape: the size of a tensor is not known before the network runs.

Engines plan their memory once, for fixed sizes. A batch that is dynamic becomes 1; any other
size has to be a number.

Bad:   torch.onnx.export(model, x, …, dynamic_axes={"x": {2: "height"}})
Good:  torch.onnx.export(model, x, …)

Rests on: TensorFlow Lite's and daBNN's memory plans, which are made before the first inference.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB502", "dynamic-shape")
