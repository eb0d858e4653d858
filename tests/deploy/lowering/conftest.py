"""One binary or float convolution in canonical form, and proof that a pass keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import NameFixPass

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from tests.deploy.geometries import Geometry, signs


@pytest.fixture(scope="session")
def make_layer(make_graph: Any) -> Callable[..., ir.Model]:
    """make_layer(geometry, …): a graph of one convolution from x to y, canonical if binary."""

    def make(
        geometry: Geometry,
        *,
        is_binary: bool = True,
        has_batch_norm: bool = False,
        zeros: tuple[int, ...] = (),
    ) -> ir.Model:
        generator, outputs = np.random.default_rng(2), geometry.outputs
        weight = signs(geometry.weight_shape)
        if not is_binary:
            weight = weight * generator.integers(1, 9, weight.shape)
        weight.reshape(-1)[list(zeros)] = 0
        arrays = {"w": weight}
        conv = f"= Conv{geometry.attributes()}(s, w)"
        text = f"s = {'Sign' if is_binary else 'Neg'}(x) "
        if has_batch_norm:
            text += f"[layer] c {conv}  y = BatchNormalization(c, gamma, beta, mean, variance)"
            arrays |= {key: generator.standard_normal(outputs) for key in ("gamma", "beta", "mean")}
            arrays["variance"] = generator.uniform(0.5, 2, outputs)
        else:
            text += f"[layer] y {conv}"
        sizes = f"1,{geometry.inputs},{geometry.size[0]},{geometry.size[1]}"
        model = make_graph(f"g (float[{sizes}] x) => (y) {{ {text} }}", **arrays)
        canonical_binarization(model)
        fold_channel_affine(model)
        assert len(binary_convs(model)) == is_binary
        return model

    return make


@pytest.fixture(scope="session")
def keeps(run_graph: Any) -> Callable[..., None]:
    """keeps(pass, model): applies the pass; ONNX Runtime must then compute the same, to the bit."""

    def check(lower: Callable[[ir.Model], None], model: ir.Model) -> None:
        shape = tuple(model.graph.inputs[0].shape)
        # Halves of odd numbers: sums are exact in any order, and none is 0.
        x = (np.random.default_rng(1).integers(-8, 8, shape) + 0.5).astype(np.float32)
        before = run_graph(model, x)
        lower(model)
        NameFixPass()(model)
        np.testing.assert_array_equal(run_graph(model, x), before)

    return check
