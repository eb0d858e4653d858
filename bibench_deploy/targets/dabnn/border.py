"""Correct the border of a binary convolution that pads with another number than −1.

The engine pads with −1. With S the sum of the weights that lie outside of the map at a
place, padding with p differs from that by (p + 1) · S in the dot. The engine's output is the
number of mismatches m, dot = K − 2m, so −(p + 1) · S / 2 is added to m: half a whole number,
which float32 holds exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bibench_deploy.targets.dabnn.emitter import Window

_Array = npt.NDArray[np.float32]


def border_of(
    kernels: _Array, size: tuple[int, int, int], window: Window, pad_value: float
) -> _Array:
    """What to add to the counts, [1, H', W', O].

    Args:
        kernels: [O, kH, kW, C] of ±1.
        size: (H, W, C) of the input.
        window: of the convolution.
        pad_value: p, 0 or +1.
    """
    inside = np.zeros(size[:2], np.float32)
    outside = np.pad(inside, window.padding, constant_values=1)
    windows = np.lib.stride_tricks.sliding_window_view(outside, window.kernel)
    windows = windows[:: window.strides[0], :: window.strides[1]]
    sums = np.einsum("hwij,oij->hwo", windows, kernels.sum(axis=3), optimize=True)
    return np.asarray(sums[None] * np.float32(-(pad_value + 1) / 2), np.float32)
