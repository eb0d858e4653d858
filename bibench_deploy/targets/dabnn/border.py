"""Correct the border of a convolution that pads with another number than the engine.

The engine pads binary convolutions with −1 and float ones with 0. With S the sum of the
weights that lie outside of the map at a place:

  - binary, padding with p: the dot differs by (p + 1) · S. What is corrected is the number of
    mismatches m, dot = K − 2m, by −(p + 1) · S / 2: half a whole number, which float32 holds
    exactly.
  - float, padding with p: p · S is added.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bibench_deploy.targets.dabnn.emitter import Window

_Array = npt.NDArray[np.float32]


def border_of(
    kernels: _Array, size: tuple[int, int, int], window: Window, pad_value: float
) -> _Array:
    """What to add to the counts of a binary convolution, [1, H', W', O].

    Args:
        kernels: [O, kH, kW, C] of ±1.
        size: (H, W, C) of the input.
        window: of the convolution.
        pad_value: p, 0 or +1.
    """
    return sums_outside(kernels, size, window) * np.float32(-(pad_value + 1) / 2)


def sums_outside(kernels: _Array, size: tuple[int, int, int], window: Window) -> _Array:
    """S: the sum of each filter's weights outside of the map, [1, H', W', O]."""
    outside = np.pad(np.zeros(size[:2], np.float32), window.padding, constant_values=1)
    windows = np.lib.stride_tricks.sliding_window_view(outside, window.kernel)
    windows = windows[:: window.strides[0], :: window.strides[1]]
    sums = np.einsum("hwij,oij->hwo", windows, kernels.sum(axis=3), optimize=True)
    return np.asarray(sums[None], np.float32)
