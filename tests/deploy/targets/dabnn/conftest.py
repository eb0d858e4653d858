"""Small .dab models made by hand, and graphs that are written, read back and proved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.targets._target import DEFAULT_OPTIONS, WriteOptions, WrittenModel
from bibench_deploy.targets.dabnn import TARGET
from bibench_deploy.targets.dabnn.emitter import Emitter, Shape, Window
from bibench_deploy.targets.dabnn.schema import DabModel, Operator
from bibench_deploy.verify.parity import Observation, Parity, compare, seeded_inputs

Build = Callable[[Emitter, str], object]


@pytest.fixture(scope="session")
def make_dab() -> Callable[..., DabModel]:
    """make_dab(shape, build): a model whose layers `build(emitter, input)` has made."""

    def make(shape: Shape, build: Build) -> DabModel:
        emitter = Emitter()
        emitter.node = "layer"
        build(emitter, emitter.place("input", shape))
        return DabModel("input", (1, *shape), tuple(emitter.layers), tuple(emitter.tensors))

    return make


@pytest.fixture(scope="session")
def every_layer(make_dab: Any) -> DabModel:
    """One layer of each kind that the engine runs: [1, 8, 8, 4] to [1, 1, 1, 3]."""
    generator = np.random.default_rng(7)

    def numbers(*shape: int) -> Any:
        return generator.standard_normal(shape).astype(np.float32)

    def signs(*shape: int) -> Any:
        return np.where(generator.standard_normal(shape) > 0, 1, -1).astype(np.float32)

    def build(emitter: Emitter, source: str) -> None:
        stem = emitter.convolve(
            Operator.FpConv2D, source, emitter.tensor("weight", numbers(8, 3, 3, 4)),
            Window((3, 3), (1, 1), 1), emitter.constant("bias", numbers(8)),
        )  # fmt: skip
        stem = emitter.pool(Operator.MaxPool, stem, Window((2, 2), (2, 2)))
        counts = emitter.convolve(
            Operator.BinConv2D, stem, emitter.filters(signs(8, 3, 3, 8), (1, 1)),
            Window((3, 3), (1, 1), 1),
        )  # fmt: skip
        branch = emitter.affine(counts, numbers(8), numbers(8))
        whole = emitter.pointwise(Operator.Add, {"input1": branch, "input2": stem})
        whole = emitter.pointwise(Operator.Relu, {"input": whole})
        slope = emitter.constant("slope", numbers(8))
        whole = emitter.pointwise(Operator.PRelu, {"input": whole, "slope": slope})
        joined = emitter.concatenate(whole, emitter.copy(whole))
        mean = emitter.pool(Operator.AvePool, joined, Window((4, 4)))
        head = emitter.tensor("head", numbers(3, 1, 1, 16))
        emitter.convolve(Operator.FpConv2D, mean, head, Window((1, 1)))

    model: DabModel = make_dab((8, 8, 4), build)
    assert {layer.operator for layer in model.layers} == {
        Operator.FpConv2D, Operator.MaxPool, Operator.BinConv2D, Operator.Affine, Operator.Add,
        Operator.Relu, Operator.PRelu, Operator.Concat, Operator.AvePool,
    }  # fmt: skip
    return model


@pytest.fixture
def proved(tmp_path: Any) -> Callable[..., tuple[WrittenModel, Parity]]:
    """proved(model, options): writes a graph, runs the file, and holds it against the graph."""

    def prove(
        model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS
    ) -> tuple[WrittenModel, Parity]:
        assert [str(refusal) for refusal in TARGET.refusals(model, options)] == []
        changed = TARGET.changed(model, options)
        graph = model if changed is None else changed
        with TARGET.open_writer() as writer:
            written = writer.write(TARGET.lower(graph), tmp_path, options, graph)
        inputs = seeded_inputs(shape_of(model.graph.inputs[0]), 4, 3)
        seen = written.execute(inputs)
        signs = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
        return written, compare(graph, inputs, Observation(seen.outputs, signs), "daBNN")

    return prove


@pytest.fixture(scope="session")
def refused() -> Callable[..., list[tuple[str, str]]]:
    """refused(model, options): rule and node of everything that the target refuses."""

    def find(model: ir.Model, options: WriteOptions = DEFAULT_OPTIONS) -> list[tuple[str, str]]:
        found = TARGET.refusals(model, options)
        assert all(refusal.message for refusal in found)
        return [(refusal.rule, refusal.node) for refusal in found]

    return find
