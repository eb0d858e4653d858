"""BIB303 map-smaller-than-kernel: the map that a layer slides over is smaller than its kernel.

Only a part of the kernel ever meets numbers, the rest meets padding. Optimised kernels of Larq
Compute Engine compute wrong numbers there; export trims such kernels to the part that is used.
A target that cannot do so refuses the layer.

Bad:   a 3×3 convolution on a 1×1 map                # a small image, many strides
Good:  a larger input, or a 1×1 convolution there

Rests on: LCE's optimised bconv2d kernels at H < k, by experiment (tests of the target lce).
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB303", "map-smaller-than-kernel")
