"""BIB501 untested-opset: a file of a newer operator set than has been tried.

A new operator set may change what an operator means. Opsets 11 to 21 are tested; a newer file is
read as its operators were then, and the proof of parity would show a difference. Of a set that
the installed onnx has never heard of nothing is known: that file is refused.

Bad:   torch.onnx.export(model, x, "model.onnx", opset_version=25)
Good:  torch.onnx.export(model, x, "model.onnx", opset_version=18)

Rests on: this project's tests, and ONNX's operator sets, each of which lists what it changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule

_NEWEST_TESTED = 21


def _check(network: Network) -> Iterator[Defect]:
    opset = network.model.opset_imports.get("", 0)
    if opset > _NEWEST_TESTED:
        yield Defect(
            "",
            Severity.INFO,
            f"opset {opset}, and {_NEWEST_TESTED} is the newest that is tested",
            f"export the model with opset_version={_NEWEST_TESTED} or less",
        )


RULE = Rule("BIB501", "untested-opset", _check)
