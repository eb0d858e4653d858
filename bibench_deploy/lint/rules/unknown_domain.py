"""BIB503 unknown-domain: an operator of a domain that is not ONNX's own.

What it computes is known to the program that wrote it alone. QONNX's quantizers are the
exception: they are written out in standard operators.

Bad:   com.microsoft.FusedConv, written by an optimiser for one runtime
Good:  the file as torch.onnx.export wrote it, before any runtime's optimiser

Rests on: ONNX's operator sets, which define the empty domain alone for everybody.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB503", "unknown-domain")
