"""BIB502 dynamic-shape: the size of a tensor is not known before the network runs.

Engines plan their memory once, for fixed sizes. A batch that is dynamic becomes 1; any other
size has to be a number, and none may depend on what the network computes.

Bad:   torch.onnx.export(model, x, …, dynamic_axes={"x": {2: "height"}})
Bad:   x[x > 0]                                      # as many numbers as are above 0
Good:  torch.onnx.export(model, x, …)
Good:  torch.where(x > 0, x, 0)

Rests on: TensorFlow Lite's and daBNN's memory plans, which are made before the first inference.
"""

from __future__ import annotations

from collections.abc import Iterator

from bibench_deploy.graph.load import notes
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for note in notes(network.model):
        yield Defect("", Severity.INFO, note, "export the model with a batch of 1")


RULE = Rule("BIB502", "dynamic-shape", _check)
