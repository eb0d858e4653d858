"""BIB311 output-channels: the number of output channels does not fit the engine's kernel.

daBNN's fast 3×3 kernel for 128, 256, 512 and 1,024 input channels computes 128 outputs at a time
and throws on any other count; its kernel for 64 inputs wants an even count.

Bad:   nn.Conv2d(128, 64, 3) on signs                # for daBNN
Good:  nn.Conv2d(128, 128, 3) on signs

Rests on: daBNN's ARMv8 kernels, by experiment with its engine.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB311", "output-channels")
