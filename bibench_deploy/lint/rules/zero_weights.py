"""BIB102 zero-weights: a weight that is exactly 0, which one bit cannot hold.

A 0 is neither −1 nor +1. Engines that pack weights into bits either refuse the layer, read the 0
as −1 (daBNN packs w > 0), or drop the whole layer to float without a word (the converter of Larq
Compute Engine). torch.sign gives it for a latent weight of 0, and so does pruning.

Bad:   w = torch.sign(latent)                        # 0 stays 0
Good:  w = torch.where(latent >= 0, 1.0, -1.0)

Rests on: LCE's converter, found by experiment (one weight of 0 leaves a CONV_2D); daBNN's
bit-packing, which tests w > 0.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB102", "zero-weights")
