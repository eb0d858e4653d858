"""BIB313 volume: a convolution or pooling over three dimensions.

The engines' layers are two-dimensional; a one-dimensional layer is written as a row.

Bad:   nn.Conv3d, nn.MaxPool3d
Good:  nn.Conv2d over frames stacked as channels

Rests on: LCE's bconv2d, TensorFlow Lite's pooling and daBNN's layers, all of rank 4.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB313", "volume")
