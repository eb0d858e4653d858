"""BIB512 old-opset: a file of an older operator set than is read.

Before opset 11, operators kept in attributes what are inputs now (Clip, Pad, Resize): other
operators under the same names.

Bad:   torch.onnx.export(model, x, "model.onnx", opset_version=9)
Good:  torch.onnx.export(model, x, "model.onnx", opset_version=18)

Rests on: ONNX's operator sets 10 and 11.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB512", "old-opset")
