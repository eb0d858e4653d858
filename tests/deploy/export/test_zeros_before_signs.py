"""A Sign whose zeros become a third value is refused where the proof would fail, and only there.

Here targets write and prove what they refuse as well as what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from bibench_deploy import targets
from bibench_deploy.errors import ParityError
from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.runner import lint_graph
from bibench_deploy.targets._target import DEFAULT_OPTIONS, Writer
from bibench_deploy.verify.parity import Comparison, Observation, proof_inputs
from tests.deploy.geometries import signs

RNG = np.random.default_rng(0)


FRESH = {"gamma": np.ones(4), "beta": np.zeros(4), "mean": np.zeros(4), "variance": np.ones(4)}
ARRAYS = {
    "w": signs((4, 4, 3, 3)) * 0.5,
    "v": signs((4, 4, 3, 3), 1),
    "f": RNG.standard_normal((4, 4, 3, 3)),
    "one": RNG.standard_normal((4, 4, 1, 1)),
    "b": RNG.standard_normal(4) / 4,
    "halves": np.full(4, 0.5),
    "turn": signs((4, 1, 1), 2),
    "shift": RNG.standard_normal((4, 1, 1)),
    "no_shift": np.zeros((4, 1, 1)),
    "low": -1.0, "high": 1.0, "nought": 0.0,
    "around": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "shape": np.array([1, 4, 8, 8]),
    "new_mean": RNG.standard_normal(4),
    **FRESH,
}  # fmt: skip
BN = "BatchNormalization({}, gamma, beta, {}, variance)"
# What makes h of the input x, and whether zeros are common in it.
ZEROS = {
    "the input": "h = Identity(x)",
    "the input, turned": "h = Neg(x)",
    "the input, times factors": "h = Mul(x, turn)",
    "the input, clipped": "h = Clip(x, low, high)",
    "the input, moved": "r = Transpose<perm=[0,1,3,2]>(x)  h = Reshape(r, shape)",
    "the input, padded": "h = Pad(x, around)",
    "the input, behind a fresh batch norm": f"h = {BN.format('x', 'mean')}",
    "a ReLU times factors": "c = Conv(x, f)  r = Relu(c)  h = Mul(r, turn)",
    "a clip at zero, times factors": "c = Conv(x, f)  r = Clip(c, nought, high)  h = Mul(r, turn)",
    "a pooled ReLU times factors": "c = Conv(x, f)  r = Relu(c)  "
    "p = MaxPool<kernel_shape=[2,2]>(r)  h = Mul(p, turn)",
    "the input plus a shift of zeros": "h = Add(x, no_shift)",
    "few terms": "h = Conv(x, one)",
    "a binary layer": "t = Sign(d)  h = Conv(t, v)",
    "a binary layer, clipped": "t = Sign(d)  c = Conv(t, v)  h = Clip(c, low, high)",
    "two binary layers": "t = Sign(d)  c = Conv(t, v)  e = Conv(t, w)  h = Add(c, e)",
}
NONE = {
    "a convolution": "h = Conv(x, f)",
    "a convolution with bias": "h = Conv(x, f, b)",
    "few terms with bias": "h = Conv(x, one, b)",
    "a padded convolution": "c = Conv(x, f)  h = Pad(c, around)",
    "the input plus a shift": "h = Add(x, shift)",
    "a ReLU plus a shift": "c = Conv(x, f)  r = Relu(c)  h = Add(r, shift)",
    "the input, behind a batch norm": f"h = {BN.format('x', 'new_mean')}",
    "a turned ReLU": "r = Relu(x)  h = Neg(r)",
    "a binary layer with halves": "t = Sign(d)  h = Conv(t, v, halves)",
    "a binary layer behind a batch norm": f"t = Sign(d)  c = Conv(t, v)  "
    f"h = {BN.format('c', 'new_mean')}",
    "a shortcut": "t = Sign(d)  c = Conv<pads=[1,1,1,1]>(t, v)  h = Add(c, d)",
}
NAMES = ["dabnn", "lce", "native", "onnx"]


@pytest.fixture(scope="module")
def writers() -> Iterator[dict[str, Writer]]:
    with targets.load("lce").open_writer() as lce, targets.load("native").open_writer() as native, \
            targets.load("dabnn").open_writer() as dabnn, \
            targets.load("onnx").open_writer() as plain:  # fmt: skip
        yield {"lce": lce, "native": native, "dabnn": dabnn, "onnx": plain}


def is_proved(graph: ir.Model, name: str, writer: Writer, folder: Path) -> bool:
    target = targets.load(name)
    inputs = proof_inputs(shape_of(graph.graph.inputs[0]), 8, 0)
    written = writer.write(target.lower(graph), folder, DEFAULT_OPTIONS, graph)
    seen = written.execute(inputs)
    taken = None
    if seen.signs:
        taken = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
    try:
        Comparison(graph, inputs).with_engine(Observation(seen.outputs, taken), target.title)
    except ParityError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", [*ZEROS, *NONE])
def test_a_sign_is_refused_where_the_proof_fails(
    before: str, name: str, make_graph: Any, writers: dict[str, Writer], tmp_path: Path
) -> None:
    text = {**ZEROS, **NONE}[before]
    stem = "d = Conv<pads=[1,1,1,1]>(x, f)  " if "(d" in text or "d)" in text else ""
    nodes = f"{stem}{text}  s = Sign(h)  z = Conv(s, w)  y = Relu(z)"
    used = {key: array for key, array in ARRAYS.items() if key in nodes.replace("(", " ").replace(
        ")", " ").replace(",", " ").split()}  # fmt: skip
    graph = make_graph(f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}", **used)
    linted = lint_graph(graph, targets.load(name))
    errors = {item.rule for item in linted.findings if item.severity is Severity.ERROR}
    if errors - {"sign-of-zero"}:
        return  # held back for another reason, which other tests hold against the target
    assert ("sign-of-zero" in errors) is not is_proved(graph, name, writers[name], tmp_path)
    assert ("sign-of-zero" in errors) is (before in ZEROS and name != "onnx")
