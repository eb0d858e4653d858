"""BIB301 zero-padding: the padding of a binary layer holds 0, which one bit cannot hold.

daBNN pads with −1, whatever the model says, so a layer that was trained with zeros computes other
numbers at its edges. Larq Compute Engine corrects for zeros at no cost where the padding is a
part of what it computes as SAME; elsewhere export pads once with +1 and once with −1, which
doubles the layer.

Bad:   nn.Conv2d(…, padding=1) on signs              # for daBNN
Good:  conv(F.pad(sign(x), (1, 1, 1, 1), value=-1.0), sign(w)), trained that way

Rests on: daBNN's bit-packed padding, by experiment with its engine; LCE's bconv2d, which has
zeros for SAME alone (docs/decisions/0007-zeros-of-a-binary-layer-as-two-halves.md).
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB301", "zero-padding")
