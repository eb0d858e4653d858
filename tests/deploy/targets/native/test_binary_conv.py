"""Integer dots and packed signs of the operator in ONNX Runtime are PyTorch's, on every path."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bibench_deploy.targets.native import library
from bibench_deploy.targets.native.operators import pack_signs, unpack_signs
from bibench_deploy.targets.native.shared_library import VARIABLE, instruction_sets
from bibench_deploy.targets.onnx.run_model import load_session
from tests.deploy.geometries import Geometry, geometries, signs
from tests.deploy.targets.native.conftest import Run, node_model

GEOMETRIES = geometries(
    groups=(1, 1, 2, 3), channels=tuple(range(1, 141)), outputs=tuple(range(1, 71)), most_padding=2
)
PLAIN = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}


def torch_dots(x: np.ndarray, w: np.ndarray, geometry: Geometry) -> np.ndarray:
    """NHWC → NHWC; zero padding, after the signs."""
    top, left, bottom, right = geometry.pads
    padded = torch.nn.functional.pad(
        torch.tensor(np.moveaxis(x, -1, 1)), (left, right, top, bottom)
    )
    found = torch.nn.functional.conv2d(
        padded, torch.tensor(w), None, geometry.strides, 0, geometry.dilations, geometry.group
    )
    return np.moveaxis(found.numpy(), 1, -1)


def attributes_of(geometry: Geometry) -> dict[str, Any]:
    return {
        "strides": geometry.strides, "pads": geometry.pads, "dilations": geometry.dilations,
        "group": geometry.group, "input_channels": geometry.inputs,
    }  # fmt: skip


def random_signs(seed: int, *shape: int) -> np.ndarray:
    return signs(shape, seed).astype(np.float32)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(geometry=GEOMETRIES, batch=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_dots_and_signs_are_those_of_pytorch(
    geometry: Geometry,
    batch: int,
    seed: int,
    instruction_set: str,
    run_node: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, instruction_set)
    x = random_signs(seed, batch, *geometry.size, geometry.inputs)
    w = random_signs(seed + 1, *geometry.weight_shape)
    expected = torch_dots(x, w, geometry)
    numbers, packed = run_node(
        "BinaryConv",
        {"x": pack_signs(x)},
        {
            "w": pack_signs(np.moveaxis(w, 1, -1)),
            "scale": np.ones(geometry.outputs, np.float32),
            "bias": np.zeros(geometry.outputs, np.float32),
        },
        attributes_of(geometry),
    )
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(packed, pack_signs(expected))
    np.testing.assert_array_equal(unpack_signs(packed, geometry.outputs) < 0, expected < 0)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("threads", [1, 2])
def test_what_follows_the_dots_is_done_in_order(
    instruction_set: str, threads: int, run_node: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, instruction_set)
    generator = np.random.default_rng(0)
    geometry = Geometry((24, 24), **PLAIN, inputs=96, outputs=72)
    x, w = random_signs(1, 2, 24, 24, 96), random_signs(2, 72, 96, 3, 3)
    scale, bias, slope, shift, offset = (
        (generator.integers(-16, 17, 72) / 8).astype(np.float32) for _ in range(5)
    )
    residual = (generator.integers(-64, 65, (2, 24, 24, 72)) / 8).astype(np.float32)
    value = torch_dots(x, w, geometry) * scale + bias + residual
    value = np.where(value < 0, value * slope, value) + shift
    value = np.clip(value, -20, 30)
    numbers, packed = run_node(
        "BinaryConv",
        {"x": pack_signs(x)},
        {
            "w": pack_signs(np.moveaxis(w, 1, -1)), "scale": scale, "bias": bias,
            "residual": residual, "slope": slope, "shift": shift, "sign_offset": offset,
        },
        {**attributes_of(geometry), "low": -20.0, "high": 30.0},
        threads=threads,
    )  # fmt: skip
    np.testing.assert_array_equal(numbers, value)
    np.testing.assert_array_equal(packed, pack_signs(value + offset))


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("pad_value", [-1, 1])
def test_padding_may_hold_a_sign(
    pad_value: int, instruction_set: str, run_node: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, instruction_set)
    x, w = random_signs(1, 1, 5, 6, 11), random_signs(2, 9, 11, 3, 3)
    padded = np.pad(x, ((0, 0), (2, 1), (1, 2), (0, 0)), constant_values=pad_value)
    geometry = Geometry((8, 9), (3, 3))
    numbers, _ = run_node(
        "BinaryConv",
        {"x": pack_signs(x)},
        {
            "w": pack_signs(np.moveaxis(w, 1, -1)),
            "scale": np.ones(9, np.float32),
            "bias": np.zeros(9, np.float32),
        },
        {"pads": (2, 1, 1, 2), "input_channels": 11, "pad_value": pad_value},
    )
    np.testing.assert_array_equal(numbers, torch_dots(padded, w, geometry))


def test_one_session_runs_in_several_threads_and_at_several_sizes() -> None:
    w = random_signs(0, 40, 64, 3, 3)
    ones, zeros = np.ones(40, np.float32), np.zeros(40, np.float32)
    constants = {"w": pack_signs(np.moveaxis(w, 1, -1)), "scale": ones, "bias": zeros}
    inputs = [random_signs(n, n, h, 9, 64) for n in (1, 2) for h in (4, 7, 30)] * 4
    attributes = {"pads": (1, 1, 1, 1), "input_channels": 64}
    model = node_model("BinaryConv", {"x": pack_signs(inputs[0])}, constants, attributes)
    session = load_session(model, 2, custom_ops_library=library())
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda x: session.run(["numbers"], {"x": pack_signs(x)})[0], inputs)
        for x, numbers in zip(inputs, found, strict=True):
            expected = torch_dots(x, w, Geometry(x.shape[1:3], **PLAIN))
            np.testing.assert_array_equal(numbers, expected)
