"""BIB504 file-size: a model of more than 2 GiB.

An .onnx file and a .tflite file end at 2 GiB, whatever lies beside them.

Bad:   a float layer of 600 million weights
Good:  the same layer, binarized: 75 MB

Rests on: protobuf's and flatbuffers' 32-bit offsets.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB504", "file-size")
