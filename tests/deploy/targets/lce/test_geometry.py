"""Kernels, strides, paddings and sizes of every kind, the whole way through LCE.

A conversion takes a second or more, so many layers share one: each reads its own part of
one input and gives its own output. What they compute is compared with PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.targets.lce import TARGET
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.padding import ORIENTATION
from bibench_deploy.targets.lce.run_model import load_interpreter
from bibench_deploy.verify.parity import Observation, compare
from tests.deploy.geometries import Geometry, geometries, signs

LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Layer:
    """One layer of a batch.

    Attributes:
        kind: `binary`, `float`, `max` or `average`.
        geometry: its window.
        filler: what a binary layer is padded with.
        zero_weights: whether some of its weights are 0.
        counts_pads: whether an average counts padding.
    """

    kind: str
    geometry: Geometry
    filler: float = 0.0
    zero_weights: bool = False
    counts_pads: bool = False

    def weight(self, number: int) -> np.ndarray:
        shape = self.geometry.weight_shape
        if self.kind == "float":
            return np.random.default_rng(number).integers(-8, 9, shape).astype(np.float32)
        weight = signs(shape, number)
        if self.zero_weights:
            weight.reshape(-1)[1::3] = 0
        return weight

    def nodes(self, number: int) -> tuple[str, dict[str, Any]]:
        """Text that computes y<number> from a map h<number>, and its constants."""
        geometry, one = self.geometry, number
        if self.kind in ("max", "average"):
            operator = {"max": "MaxPool", "average": "AveragePool"}[self.kind]
            numbers = {
                "kernel_shape": geometry.kernel, "pads": geometry.pads,
                "strides": geometry.strides, "dilations": geometry.dilations,
            }  # fmt: skip
            parts = [f"{key}=[{','.join(map(str, value))}]" for key, value in numbers.items()]
            if self.kind == "average":
                parts.append(f"count_include_pad={int(self.counts_pads)}")
            return f"y{one} = {operator}<{', '.join(parts)}>(h{one})", {}
        arrays: dict[str, Any] = {f"w{one}": self.weight(number)}
        if self.kind == "float":
            return f"y{one} = Conv{geometry.attributes()}(h{one}, w{one})", arrays
        if self.filler == 0:
            text = (
                f"s{one} = PlusMinus(h{one})  y{one} = Conv{geometry.attributes()}(s{one}, w{one})"
            )
            return text, arrays
        arrays[f"filler{one}"] = self.filler
        top, left, bottom, right = geometry.pads
        arrays[f"amounts{one}"] = np.array([0, 0, top, left, 0, 0, bottom, right])
        unpadded = Geometry(**{**geometry.__dict__, "pads": (0, 0, 0, 0)})
        text = (
            f"s{one} = PlusMinus(h{one})  p{one} = Pad(s{one}, amounts{one}, filler{one})"
            f"  y{one} = Conv{unpadded.attributes()}(p{one}, w{one})"
        )
        return text, arrays

    def by_torch(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """What PyTorch computes from the map."""
        geometry = self.geometry
        top, left, bottom, right = geometry.pads
        sides, stride, dilation = (left, right, top, bottom), geometry.strides, geometry.dilations
        if self.kind in ("binary", "float"):
            numbers = torch.where(x >= 0, 1.0, -1.0) if self.kind == "binary" else x
            weight = torch.tensor(self.weight(number), dtype=torch.float32)
            padded = F.pad(numbers, sides, value=self.filler)
            return F.conv2d(padded, weight, None, stride, 0, dilation, geometry.group)
        if self.kind == "max":
            padded = F.pad(x, sides, value=LOWEST)
            return F.max_pool2d(padded, geometry.kernel, stride, 0, dilation)
        ones = torch.ones(x.shape[1], 1, *geometry.kernel)
        counted = F.pad(torch.ones_like(x), sides, value=float(self.counts_pads))
        options = (None, stride, 0, dilation, x.shape[1])
        total = F.conv2d(F.pad(x, sides), ones, *options)
        return total / F.conv2d(counted, ones, *options).clamp(min=1)


# Of the input, and of the frame that every layer's result is put in.
SIZE, CHANNELS, FRAME = 14, 64, 24


def batch(make_graph: Any, layers: Sequence[Layer]) -> ir.Model:
    """One graph of all layers, each on its own corner of the input, results side by side."""
    texts, arrays = [], {"starts": np.zeros(3, np.int64), "axes": np.arange(1, 4)}
    arrays["steps"] = np.ones(3, np.int64)
    for number, layer in enumerate(layers):
        geometry = layer.geometry
        arrays[f"ends{number}"] = np.array([geometry.inputs, *geometry.size])
        height, width = geometry.output_size
        arrays[f"frame{number}"] = np.array([0] * 6 + [FRAME - height, FRAME - width])
        text, own = layer.nodes(number)
        arrays.update(own)
        texts += [
            f"h{number} = Slice(x, starts, ends{number}, axes, steps)", text,
            f"z{number} = Pad(y{number}, frame{number})",
        ]  # fmt: skip
    results = ", ".join(f"z{number}" for number in range(len(layers)))
    return make_graph(
        f"g (float[1,{CHANNELS},{SIZE},{SIZE}] x) => (y) {{ {'  '.join(texts)}"
        f"  y = Concat<axis=1>({results}) }}",
        **arrays,
    )


@pytest.fixture
def check(make_graph: Any, lce_writer: Any, tmp_path: Any) -> Callable[..., list[str]]:
    """check(layers, orientation): convert them, compare with PyTorch; gives the operators."""

    def run(layers: Sequence[Layer], orientation: str | None = None) -> list[str]:
        graph = batch(make_graph, layers)
        if orientation is not None:
            graph.metadata_props[ORIENTATION] = orientation
        assert TARGET.refusals(graph) == []
        # Proves that every binary layer is one in the file.
        written = lce_writer.write(TARGET.lower(graph), tmp_path)
        # Halves of odd numbers, so that sums are exact in any order and none is 0.
        x = np.random.default_rng(3).integers(-8, 8, (1, CHANNELS, SIZE, SIZE)) + 0.5
        x = x.astype(np.float32)
        seen = written.execute(x)
        whole = torch.tensor(x)
        content = written.files["model"].read_bytes()
        fast = load_interpreter(content, kernel="default", use_xnnpack=False)
        (again,) = fast.predict([np.ascontiguousarray(x.transpose(0, 2, 3, 1))])
        for outputs in (seen.outputs, again.transpose(0, 3, 1, 2)):
            first = 0
            for number, layer in enumerate(layers):
                inputs, size = layer.geometry.inputs, layer.geometry.size
                expected = layer.by_torch(number, whole[:, :inputs, : size[0], : size[1]]).numpy()
                _, channels, height, width = expected.shape
                output = outputs[:, first : first + channels, :height, :width]
                first += channels
                # The mean divides: one rounding, or two. A binary layer's batch norm of
                # deviation 1 is folded by TensorFlow's approximate root: with AVX-512 its last
                # bit is off.
                tolerance = {"average": 1e-6, "binary": 2.0**-23}.get(layer.kind, 0)
                np.testing.assert_allclose(
                    output, expected, rtol=tolerance, atol=10 * tolerance,
                    err_msg=f"{orientation} {layer}",
                )  # fmt: skip
        signs = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
        compare(graph, x, Observation(seen.outputs, signs), "LCE")
        return [node.name for node in read_tflite(written.files["model"]).operators]

    return run


@st.composite
def layers(draw: Any) -> Layer:
    kind = draw(st.sampled_from(["binary", "binary", "float", "max", "average"]))
    groups = (1, 1, 1, 2, 4) if kind in ("binary", "float") else (1,)
    # A pooling's padding is smaller than its kernel. No two layers may have the same weights,
    # since that is what they are known by in the file: even one tap holds 24 bits.
    geometry = draw(
        geometries(
            groups=groups,
            channels=(1, 3, 16),
            outputs=(24,),
            most_padding=-1 if kind in ("max", "average") else 0,
        )
    )
    return Layer(
        kind,
        geometry,
        filler=draw(st.sampled_from([0.0, 0.0, 1.0, -1.0])) if kind == "binary" else 0.0,
        zero_weights=draw(st.sampled_from([False, False, True])),
        counts_pads=draw(st.booleans()),
    )


def drawn(count: int) -> list[Layer]:
    """Layers of every kind, the same in each run: hypothesis draws, conversions take batches."""
    found: dict[Layer, None] = {}

    @settings(
        max_examples=count, database=None, derandomize=True, phases=[Phase.generate],
        deadline=None, suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(layers())
    def collect(layer: Layer) -> None:
        found[layer] = None

    collect()
    return list(found)


def square(size: int, kernel: int, **options: Any) -> Geometry:
    """A geometry that is the same along both axes; `stride`, `pad` and `dilation` are numbers."""
    pad, stride = options.pop("pad", 0), options.pop("stride", 1)
    dilation = options.pop("dilation", 1)
    options = {"inputs": 3, "outputs": 24, **options}
    return Geometry(
        (size, size),
        (kernel, kernel),
        (stride, stride),
        (pad,) * 4,
        (dilation, dilation),
        **options,
    )


CATALOGUE = [
    Layer("binary", square(8, 3, pad=1)),
    Layer("binary", square(7, 3, pad=1, stride=2)),
    Layer("binary", square(8, 3, pad=1, stride=2)),
    Layer("binary", square(8, 5, pad=1)),
    Layer("binary", square(13, 7, pad=1, stride=2)),
    Layer("binary", square(8, 2, pad=1)),
    Layer("binary", square(2, 3, pad=1)),
    Layer("binary", square(1, 3, pad=1)),
    Layer("binary", square(8, 1, pad=1)),
    Layer("binary", square(8, 3, pad=1, inputs=33), filler=1.0),
    Layer("binary", square(8, 3, pad=1, stride=2), filler=1.0),
    Layer("binary", square(2, 3, pad=2), filler=1.0),
    Layer("binary", square(8, 3, pad=1), filler=-1.0),
    Layer("binary", square(8, 3, pad=1, inputs=64), zero_weights=True),
    Layer("binary", square(8, 3, pad=2), zero_weights=True),
    Layer("binary", square(9, 3, pad=2, stride=2, dilation=2)),
    Layer("binary", square(9, 3, pad=3, stride=2, dilation=3)),
    Layer("binary", square(8, 3, pad=1, group=2, inputs=64, outputs=48)),
    # Of eight pieces with a filter of one bit some are equal: which is which in the file?
    Layer("binary", square(6, 1, group=8, inputs=8, outputs=8)),
    Layer("binary", square(8, 3, pad=1, group=8, inputs=8, outputs=8)),
    Layer("binary", Geometry((6, 9), (1, 4), (1, 2), (0, 2, 0, 1), inputs=31, outputs=24)),
    Layer("float", square(8, 3, pad=1, stride=2)),
    Layer("float", square(8, 4, pad=1)),
    Layer("float", square(8, 3, pad=1, stride=2, group=3)),
    Layer("float", square(8, 3, pad=1, group=3, inputs=6)),
    Layer("float", square(9, 3, pad=3, stride=2, dilation=3)),
    Layer("float", square(7, 1, stride=2)),
    Layer("max", square(8, 3, pad=1, stride=2)),
    Layer("max", square(8, 2, pad=1, stride=2)),
    Layer("max", square(8, 3, pad=2, dilation=2)),
    Layer("average", square(8, 3, pad=1, stride=2)),
    Layer("average", square(8, 3, pad=1, stride=2), counts_pads=True),
    Layer("average", square(8, 2, pad=1)),
]


@pytest.mark.parametrize("orientation", ["upright", "turned"])
def test_what_networks_are_made_of_computes_what_pytorch_computes(orientation, check) -> None:
    check(CATALOGUE, orientation)


BATCH = 40


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_layers_of_every_geometry_compute_what_pytorch_computes(number, check) -> None:
    some = drawn(300)[number * BATCH : (number + 1) * BATCH]
    assert len(some) == BATCH
    check(some, ("upright", "turned")[number % 2])


def forms(make_graph: Any, write: Callable[[ir.Model], Any], layer: Layer) -> list[str]:
    """The operators of a layer alone."""
    geometry = layer.geometry
    text, arrays = layer.nodes(0)
    sizes = f"1,{geometry.inputs},{geometry.size[0]},{geometry.size[1]}"
    graph = make_graph(f"g (float[{sizes}] h0) => (y0) {{ {text} }}", **arrays)
    return [node.name for node in read_tflite(write(graph).files["model"]).operators]


BINARY = ["LceQuantize", "LceBconv2d"]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Layer("binary", square(8, 3, pad=1)), BINARY),
        # SAME fits one of both orientations.
        (Layer("binary", square(9, 3, pad=1, stride=2)), BINARY),
        (Layer("binary", square(8, 3, pad=1, stride=2)), ["REVERSE_V2", *BINARY, "REVERSE_V2"]),
        # Padding with +1 is the engine's own; with −1 it is a float one.
        (Layer("binary", square(8, 3, pad=1), filler=1.0), BINARY),
        (Layer("binary", square(8, 3, pad=1), filler=-1.0), ["PADV2", *BINARY]),
        (Layer("binary", square(8, 3, pad=2), filler=1.0), ["PADV2", *BINARY]),
        # On a map of one number a 3×3 kernel is its middle tap.
        (Layer("binary", square(1, 3, pad=1)), BINARY),
        (Layer("binary", square(2, 3, pad=1)), ["PADV2", "PADV2", "CONCATENATION", *BINARY]),
        (Layer("binary", square(8, 3, pad=2)), ["PADV2", "PADV2", "CONCATENATION", *BINARY]),
        # A part of SAME, where that computes little more.
        (Layer("binary", square(8, 5, pad=1)), [*BINARY, "STRIDED_SLICE"]),
        (Layer("binary", square(8, 3, pad=1), zero_weights=True), ["CONCATENATION", *BINARY]),
        # A stride that divides the dilation costs a slice.
        (Layer("binary", square(9, 3, stride=2, dilation=2)), ["STRIDED_SLICE", *BINARY]),
        (Layer("float", square(8, 4, pad=1)), ["PAD", "CONV_2D"]),
        (Layer("float", square(8, 3, pad=1, group=3, inputs=6)), ["CONV_2D"]),
        (Layer("float", square(8, 3, pad=1, group=3)), ["DEPTHWISE_CONV_2D"]),
        (Layer("max", square(9, 3, pad=1, stride=2)), ["MAX_POOL_2D"]),
        (Layer("max", square(8, 2, pad=1, stride=2)), ["PADV2", "MAX_POOL_2D"]),
        (Layer("average", square(8, 3, pad=1)), ["AVERAGE_POOL_2D"]),
        (Layer("average", square(8, 3, pad=1), counts_pads=True), ["PAD", "AVERAGE_POOL_2D"]),
    ],
)
def test_each_geometry_takes_the_cheapest_form(layer, expected, make_graph, write_lce) -> None:
    assert forms(make_graph, write_lce, layer) == expected
