"""A file that anybody may have written gets an error status from each operator, never a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bibench_deploy.targets.native.shared_library import VARIABLE
from tests.deploy.targets.native.conftest import Run

LARGE = 2**62
ONES, ZEROS = np.ones(4, np.float32), np.zeros(4, np.float32)
CONV = {
    "w": np.zeros((4, 3, 3, 2), np.uint8), "scale": ONES, "bias": ZEROS, "residual": None,
    "slope": None, "shift": None, "sign_offset": None,
}  # fmt: skip
SIGNS = np.zeros((1, 5, 5, 2), np.uint8)
ATTRIBUTES = {"input_channels": 16}
IMAGE = np.zeros((1, 3, 8, 8), np.float32)
STEM = {"w": np.zeros((4, 3, 3, 3), np.float32), "bias": ZEROS, "sign_offset": None}


def test_the_plain_operators_run(run_node: Run) -> None:
    numbers, packed = run_node("BinaryConv", {"x": SIGNS}, CONV, ATTRIBUTES)
    assert (numbers == 144).all()
    assert packed.shape == (1, 3, 3, 1)
    numbers, packed = run_node("FloatStem", {"x": IMAGE}, STEM, {})
    assert numbers.shape == (1, 6, 6, 4)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"strides": (0, 1)}, "stride is 0; it must be from 1 to"),
        ({"strides": (-1, 1)}, "stride is -1"),
        ({"strides": (LARGE, 1)}, "stride is"),
        ({"strides": (1,)}, "strides has 1 numbers, not 2"),
        ({"pads": (-1, 0, 0, 0)}, "padding is -1"),
        ({"pads": (LARGE, LARGE, LARGE, LARGE)}, "padding is"),
        ({"pads": (2**20, 2**20, 2**20, 2**20)}, "a padded row|the padded input|the output"),
        ({"dilations": (0, 0)}, "dilation is 0"),
        ({"dilations": (1000, 1)}, "the kernel reaches over 2001 positions, but the padded map"),
        ({"group": 0}, "group is 0"),
        ({"group": 3}, "input_channels is no multiple of group"),
        ({"group": -4}, "group is -4"),
        ({"input_channels": 0}, "input_channels is 0"),
        ({"input_channels": LARGE}, "input_channels is"),
        ({"input_channels": 17}, r"weights is \[4, 3, 3, 2\], not \[4, 3, 3, 3\]"),
        ({"pad_value": 2}, "pad_value is 2"),
        ({"low": 2.0, "high": 1.0}, "low is not below high"),
        ({"low": float("nan")}, "low is not below high"),
    ],
)
def test_attributes_of_a_binary_convolution_are_checked(
    changed: dict[str, Any], told: str, run_node: Run
) -> None:
    with pytest.raises(Exception, match=rf"BinaryConv: .*({told})"):
        run_node("BinaryConv", {"x": SIGNS}, CONV, {**ATTRIBUTES, **changed})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"w": np.zeros((4, 3, 3), np.uint8)}, "it must have 4 dimensions"),
        ({"w": np.zeros((0, 3, 3, 2), np.uint8)}, "output channels is 0"),
        ({"w": np.zeros((4, 0, 3, 2), np.uint8)}, "kernel size is 0"),
        ({"w": np.zeros((4, 3, 3, 1), np.uint8)}, "weights is"),
        ({"scale": np.ones(3, np.float32)}, r"scale is \[3\], not \[4\]"),
        ({"bias": np.ones((4, 1), np.float32)}, r"bias is \[4, 1\]"),
        ({"slope": np.ones(5, np.float32)}, "slope is"),
        ({"sign_offset": np.ones(0, np.float32)}, "sign_offset is"),
        ({"residual": np.ones((1, 3, 3, 5), np.float32)}, "the residual is"),
        ({"residual": np.ones(4, np.float32)}, "the residual is"),
    ],
)
def test_shapes_of_constants_are_checked(changed: dict[str, Any], told: str, run_node: Run) -> None:
    with pytest.raises(Exception, match=rf"BinaryConv: .*({told})"):
        run_node("BinaryConv", {"x": SIGNS}, {**CONV, **changed}, ATTRIBUTES)


@pytest.mark.parametrize(
    "shape",
    [(1, 5, 5), (1, 5, 5, 3), (1, 5, 5, 0), (1, 0, 5, 2), (1, 1, 1, 2), (1, 5, 5, 2, 1), ()],
)
def test_the_shape_of_the_input_is_checked(shape: tuple[int, ...], run_node: Run) -> None:
    with pytest.raises(Exception, match="BinaryConv: "):
        run_node("BinaryConv", {"x": np.zeros(shape, np.uint8)}, CONV, ATTRIBUTES)


def test_no_image_gives_no_numbers(run_node: Run) -> None:
    empty = np.zeros((0, 5, 5, 2), np.uint8)
    numbers, packed = run_node("BinaryConv", {"x": empty}, CONV, ATTRIBUTES)
    assert numbers.shape == (0, 3, 3, 4)
    assert packed.shape == (0, 3, 3, 1)


@pytest.mark.parametrize("name", ["w", "scale", "bias", "slope", "sign_offset"])
def test_what_must_be_constant_may_not_be_computed(name: str, run_node: Run) -> None:
    # Constants that follow a computed one stay constants: inputs keep their order.
    order = ["x", *CONV]
    computed = CONV[name] if CONV[name] is not None else ONES
    inputs = {"x": SIGNS, **{key: CONV[key] for key in order[1 : order.index(name)]}}
    before = {key: value for key, value in inputs.items() if value is not None}
    if name in ("slope", "sign_offset"):
        before = {**before, "residual": np.zeros((1, 3, 3, 4), np.float32)}
    if name == "sign_offset":
        before = {**before, "slope": ONES, "shift": ZEROS}
    after = {key: CONV[key] for key in order[order.index(name) + 1 :]}
    with pytest.raises(Exception, match=r"BinaryConv: .*must be (a )?constant"):
        run_node("BinaryConv", {**before, name: computed}, after, ATTRIBUTES)


@pytest.mark.parametrize(
    ("constants", "attributes", "image", "told"),
    [
        ({}, {"strides": (0, 1)}, IMAGE, "stride is 0"),
        ({}, {"pool_kernel": (3, 3), "pool_pads": (3, 0, 0, 0)}, IMAGE, "the pooling"),
        ({}, {"pool_kernel": (0, 3)}, IMAGE, "kernel size is 0"),
        ({}, {"pool_kernel": (9, 9)}, IMAGE, "the kernel reaches over 9"),
        ({}, {"pool_kernel": (2, 2), "pool_dilations": (2, 2)}, IMAGE, "the pooling"),
        ({}, {"pads": (LARGE,) * 4}, IMAGE, "padding is"),
        ({}, {"pads": (2**20,) * 4}, IMAGE, "a padded row|the padded input|the output"),
        ({"bias": np.ones(3, np.float32)}, {}, IMAGE, "bias is"),
        ({"w": np.zeros((4, 3, 3), np.float32)}, {}, IMAGE, "weights is"),
        ({"w": np.zeros((0, 3, 3, 3), np.float32)}, {}, IMAGE, "bias is"),
        ({"sign_offset": np.ones(2, np.float32)}, {}, IMAGE, "sign_offset is"),
        ({}, {}, np.zeros((1, 2, 8, 8), np.float32), "the image is"),
        ({}, {}, np.zeros((1, 3, 2, 2), np.float32), "the kernel reaches over 3"),
        ({}, {}, np.zeros((1, 3, 8), np.float32), "the image is"),
        ({}, {}, np.zeros((1, 3, 0, 8), np.float32), "height is 0"),
    ],
)
def test_a_stem_is_checked_likewise(
    constants: dict[str, Any], attributes: dict[str, Any], image: Any, told: str, run_node: Run
) -> None:
    with pytest.raises(Exception, match=rf"FloatStem: .*({told})"):
        run_node("FloatStem", {"x": image}, {**STEM, **constants}, attributes)


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 3, 4, 5), ()])
def test_numbers_to_binarize_are_a_map(shape: tuple[int, ...], run_node: Run) -> None:
    with pytest.raises(Exception, match=r"Binarize: the numbers is .*4 dimensions"):
        run_node("Binarize", {"x": np.zeros(shape, np.float32)}, {}, {}, ("signs", "numbers"))


def test_an_unknown_instruction_set_lists_those_that_are_here(
    run_node: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "mmx")
    with pytest.raises(RuntimeError, match=r"BIBENCH_NATIVE_ISA names no .* it has .*portable"):
        run_node("BinaryConv", {"x": SIGNS}, CONV, ATTRIBUTES)


def test_random_attributes_end_in_a_status_or_a_result(run_node: Run) -> None:
    generator = np.random.default_rng(3)
    pool = [-LARGE, -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**32 + 1, LARGE]
    ends = []
    for _ in range(300):
        attributes = {
            "strides": [int(item) for item in generator.choice(pool, 2)],
            "pads": [int(item) for item in generator.choice(pool, 4)],
            "dilations": [int(item) for item in generator.choice(pool, 2)],
            "group": int(generator.choice(pool)),
            "input_channels": 16,
        }
        kept = {key: value for key, value in attributes.items() if generator.random() < 0.5}
        try:
            run_node("BinaryConv", {"x": SIGNS}, CONV, {**ATTRIBUTES, **kept})
            ends.append("result")
        except Exception as error:
            ends.append("status" if "BinaryConv: " in str(error) else str(error))
    assert set(ends) == {"result", "status"}
