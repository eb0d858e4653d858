"""BIB203 scale-before-layer: the signs are multiplied by more than one number per image.

A factor in front of a convolution cannot be taken out of its sum unless it is one number per
image: the layer reads scaled signs, which are not bits. It cannot be exported even as float
operators behind a binary layer.

Bad:   conv(sign(x) * k, sign(w))                    # k: [N, 1, H, W] or [1, C, 1, 1]
Good:  conv(sign(x), sign(w)) * k.mean((2, 3), keepdim=True)

Rests on: arithmetic. Each window of the convolution sums products with other factors.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB203", "scale-before-layer")
