"""Pack the signs of a filter into words as daBNN's kernels read them.

Bit 1 stands for +1, and 0 for −1 and for what fills up. A filter is flattened in the order
kH, kW, C; element i is bit i % 64 of word i // 64, lowest first. Each filter is filled up
to whole 128 bits, but for one case: a 3×3 filter over 64 channels with equal strides is 9
words as it is, since the kernel for it on ARMv8 reads 9.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WORD_BITS = 64
_BLOCK = 128


def words_per_filter(kernel: tuple[int, int], channels: int, strides: tuple[int, int]) -> int:
    """How many 64-bit words one filter takes.

    Args:
        kernel: (kH, kW).
        channels: C.
        strides: of the convolution, (vertical, horizontal).

    Example:
        >>> words_per_filter((3, 3), 64, (1, 1)), words_per_filter((1, 1), 64, (1, 1))
        (9, 2)
    """
    count = kernel[0] * kernel[1] * channels
    if channels == WORD_BITS and kernel == (3, 3) and strides[0] == strides[1]:
        return count // WORD_BITS
    return -(-count // _BLOCK) * (_BLOCK // WORD_BITS)


def pack_filters(
    weight: npt.NDArray[np.float32], strides: tuple[int, int]
) -> npt.NDArray[np.uint64]:
    """The words of all filters, one filter behind the other.

    Args:
        weight: [O, kH, kW, C] of −1 and +1.
        strides: of the convolution.
    """
    outputs, height, width, channels = weight.shape
    words = words_per_filter((height, width), channels, strides)
    bits = np.zeros((outputs, words * WORD_BITS), bool)
    bits[:, : height * width * channels] = weight.reshape(outputs, -1) > 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").reshape(-1)


def unpack_filters(
    words: npt.NDArray[np.uint64], shape: tuple[int, ...], strides: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """The reverse of `pack_filters`: ±1 in [O, kH, kW, C].

    Raises:
        ValueError: the words are not those of such filters, or a bit that only fills up is 1,
            which the engine would count as a mismatch.
    """
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"filters of shape {list(shape)}")
    outputs, height, width, channels = shape
    count, each = height * width * channels, words_per_filter((height, width), channels, strides)
    if words.size != outputs * each:
        raise ValueError(
            f"{words.size} words, and {outputs} filters of {height}×{width}×{channels} "
            f"take {outputs * each}"
        )
    stored = np.ascontiguousarray(words, "<u8").reshape(outputs, each).view(np.uint8)
    bits = np.unpackbits(stored, axis=1, bitorder="little")
    if bits[:, count:].any():
        raise ValueError("a bit that only fills up is set")
    signs = bits[:, :count].astype(np.float32) * 2 - 1
    return np.asarray(signs.reshape(shape), np.float32)
