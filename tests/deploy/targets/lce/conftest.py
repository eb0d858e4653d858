"""One small network with every kind of binary layer, converted by the real engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from bibench_deploy.targets._target import WrittenModel
from bibench_deploy.targets.lce import TARGET


@dataclass(frozen=True)
class Converted:
    """A lowered graph, and what the writer made of it."""

    lowered: ir.Model
    written: WrittenModel
    path: Path


@pytest.fixture(scope="session")
def converted(make_graph: Any, lce_writer: Any, tmp_path_factory: Any) -> Converted:
    """Three binary layers, strided so that the network is rotated: [1, 4, 8, 8] to [1, 3]."""
    generator = np.random.default_rng(11)

    def signs(*shape: int) -> Any:
        return np.where(generator.standard_normal(shape) >= 0, 1.0, -1.0)

    graph = make_graph(
        """g (float[1,4,8,8] x) => (y) {
            s = PlusMinus(x)  [first] a = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w1)
            b = Mul(a, alpha)  c = Add(b, beta)
            t = Sign(c)  [second] d = Conv<pads=[1,1,1,1]>(t, w2)
            p = GlobalAveragePool(d)  f = Flatten(p)  g = Sub(f, shift)
            u = Sign(g)  [third] h = Gemm<transB=1>(u, w3)  y = Mul(h, half) }""",
        w1=signs(8, 4, 3, 3),
        w2=signs(40, 8, 3, 3),
        w3=signs(3, 40),
        alpha=generator.uniform(0.1, 2, (8, 1, 1)),
        beta=generator.standard_normal((8, 1, 1)),
        shift=generator.standard_normal(40),
        half=0.5,
    )
    assert TARGET.refusals(graph) == []
    lowered = TARGET.lower(graph)
    folder = tmp_path_factory.mktemp("lce")
    written = lce_writer.write(lowered, folder)
    return Converted(lowered, written, written.files["model"])
