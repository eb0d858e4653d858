"""What daBNN's kernels cannot run, or run wrongly without a word, layer by layer.

One file runs on ARMv8, ARMv7 and x86-64, so a limit of one of them holds for all. Each was
found by running the unmodified engine; the numbers are those of its source (bgemm.h,
bconv.h, fused_binarize_im2col.h, mat.h, AvePool.cpp, MaxPool.cpp, Relu.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bibench_deploy.counted import counted
from bibench_deploy.targets._target import Refusal
from bibench_deploy.targets.dabnn.packing import words_per_filter
from bibench_deploy.targets.dabnn.schema import DabLayer, Operator

# Words of one operand that a block of the binary matrix product holds; more are written
# over what lies behind, without a word (bgemm.h).
LARGEST_BLOCK_WORDS = 128_000
_BLOCK_ROWS = 32
# Words of all windows of a 3×3 convolution over 64 channels (bconv.h).
LARGEST_COLUMNS_WORDS = 999_999
# Numbers of one window (fused_binarize_im2col.h).
LARGEST_WINDOW = 60_000
# Numbers of a map that the direct convolution reads or gives (bconv.h).
LARGEST_MAP = 9_999_999
# Numbers of the input that the engine's benchmark feeds (benchmark_single_model.cpp).
LARGEST_INPUT = 999_999

_DIRECT_CHANNELS = (128, 256, 512, 1024)
_Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Placed:
    """A layer and the maps around it.

    Attributes:
        layer: it, named as the node in the .onnx file that it comes from.
        inputs: shape (H, W, C) of each map that it reads.
        output: of the map that it gives.
        kernel: (kH, kW) of a convolution or pooling, else (1, 1).
    """

    layer: DabLayer
    inputs: tuple[_Shape, ...]
    output: _Shape
    kernel: tuple[int, int]


def input_refusals(shape: _Shape) -> Iterator[Refusal]:
    """Whether the engine's benchmark can feed an input (H, W, C)."""
    size = shape[0] * shape[1] * shape[2]
    if size > LARGEST_INPUT:
        yield Refusal(
            "buffer-limit",
            "",
            f"an input of {size:,} numbers, and daBNN's benchmark feeds {LARGEST_INPUT:,}",
            "use smaller images",
        )


def limit_refusals(placed: Placed) -> Iterator[Refusal]:
    """Every limit of the engine that a layer is beyond."""
    yield from _map_refusals(placed)
    check = _CHECKS.get(placed.layer.operator)
    if check is not None:
        yield from check(placed)


def _map_refusals(placed: Placed) -> Iterator[Refusal]:
    for height, width, _ in (*placed.inputs, placed.output):
        if height != width:
            yield Refusal(
                "non-square-map",
                placed.layer.name,
                f"a map of {height}×{width}, and daBNN mixes up height and width",
                "use square inputs, kernels and strides",
            )
            return
    if placed.kernel[0] != placed.kernel[1]:
        yield Refusal(
            "non-square-map",
            placed.layer.name,
            f"a kernel of {placed.kernel[0]}×{placed.kernel[1]}, and daBNN mixes up height and "
            "width",
            "use square kernels",
        )


def _is_aligned(shape: _Shape) -> bool:
    return shape[1] * shape[2] % 4 == 0 or shape[1] * shape[2] == 1


def _rows_of_four(placed: Placed) -> Iterator[Refusal]:
    """Rows that are no whole 16 bytes end the engine where it steps from row to row."""
    for shape in (*placed.inputs, placed.output):
        if not _is_aligned(shape):
            yield Refusal(
                "channel-count",
                placed.layer.name,
                f"a map of width {shape[1]} with {counted(shape[2], 'channel')}; daBNN's "
                f"{placed.layer.operator.name} needs width × channels to be a multiple of 4",
                "use a multiple of 4 channels",
            )
            return


def _max_pool(placed: Placed) -> Iterator[Refusal]:
    yield from _rows_of_four(placed)
    channels = placed.output[2]
    if placed.kernel in ((2, 2), (3, 3)) and channels % 4:
        yield Refusal(
            "channel-count",
            placed.layer.name,
            f"a max pooling of {counted(channels, 'channel')}; daBNN's on ARM takes 4 at once",
            "use a multiple of 4 channels",
        )


def _average_pool(placed: Placed) -> Iterator[Refusal]:
    yield from _rows_of_four(placed)
    if any(placed.layer.numbers("pads")):
        yield Refusal(
            "zero-padding",
            placed.layer.name,
            "a padded average pooling, which daBNN computes otherwise on ARM than on x86",
            "average without padding",
        )


def _relu(placed: Placed) -> Iterator[Refusal]:
    height, width, channels = placed.output
    if height * width * channels % 4:
        yield Refusal(
            "channel-count",
            placed.layer.name,
            f"a ReLU of {height}×{width}×{channels} numbers; daBNN's on ARM leaves out the last "
            "ones of a number that is no multiple of 4",
            "use a multiple of 4 channels",
        )


def _binary_convolution(placed: Placed) -> Iterator[Refusal]:
    (_, width, channels), (height_out, width_out, outputs) = placed.inputs[0], placed.output
    strides = placed.layer.numbers("strides")
    pads = placed.layer.numbers("pads")
    places = height_out * width_out
    words = words_per_filter(placed.kernel, channels, (strides[0], strides[1]))
    is_3x3 = placed.kernel == (3, 3)
    if channels == 64:
        yield from _rows_of_four(placed)
    # One place of one word is a row that the engine lets pass.
    if channels == 64 and width % 2 and (width, pads[0]) != (1, 0):
        yield Refusal(
            "channel-count",
            placed.layer.name,
            f"64 channels on a map of the odd width {width}, which daBNN cannot pack",
            "use an even width or other channels",
        )
    if channels == 64 and is_3x3 and (places % 2 or outputs % 2):
        yield Refusal(
            "channel-count",
            placed.layer.name,
            f"a 3×3 convolution of 64 channels that gives {height_out}×{width_out}×{outputs}; "
            "daBNN on ARMv8 takes two places and two channels at once",
            "use an even size of the output, or other channels",
        )
    if channels in _DIRECT_CHANNELS and is_3x3 and outputs % 128:
        yield Refusal(
            "output-channels",
            placed.layer.name,
            f"a 3×3 convolution from {channels} to {outputs} channels; daBNN on ARMv8 needs a "
            "multiple of 128 there",
            "use a multiple of 128 output channels",
        )
    sizes = [("window", placed.kernel[0] * placed.kernel[1] * channels, LARGEST_WINDOW - 1)]
    if channels == 64 and is_3x3:
        sizes.append(("windows in words", words * places, LARGEST_COLUMNS_WORDS))
    else:
        sizes.append(("block in words", min(_BLOCK_ROWS, words) * places, LARGEST_BLOCK_WORDS))
    if channels in (64, *_DIRECT_CHANNELS) and is_3x3:
        padded = (width + 2 * pads[0]) ** 2 * channels // 64
        sizes += [("output", places * outputs, LARGEST_MAP), ("input", padded, LARGEST_MAP - 1)]
    for what, size, largest in sizes:
        if size > largest:
            yield Refusal(
                "buffer-limit",
                placed.layer.name,
                f"its {what} of {size:,} is more than the {largest:,} of daBNN's fixed buffer, "
                "and it would write beyond",
                "use a smaller map, or a stride before it",
            )


def _concatenation(placed: Placed) -> Iterator[Refusal]:
    counts = [channels for _, _, channels in placed.inputs]
    if len(set(counts)) != 1:
        yield Refusal(
            "channel-count",
            placed.layer.name,
            f"a Concat of {' and '.join(map(str, counts))} channels; daBNN's needs equal numbers",
            "join maps of equal channels",
        )


_CHECKS: dict[Operator, Callable[[Placed], Iterator[Refusal]]] = {
    Operator.Add: _rows_of_four,
    Operator.Affine: _rows_of_four,
    Operator.AvePool: _average_pool,
    Operator.BinConv2D: _binary_convolution,
    Operator.Concat: _concatenation,
    Operator.MaxPool: _max_pool,
    Operator.Relu: _relu,
}
