"""Turn the mismatches that a binary convolution counts into the numbers of its batch norm.

With K products per sum the dot is K − 2m, so y = scale · dot + shift = a · m + b with
a = −2 · scale and b = shift + K · scale. The engine's sign is −1 at 0, and a · m + b is exactly 0
in two roundings alone: a processor with a fused multiply-add gives what the first one took off.
So where a sign reads y, b is moved by one unit in the last place, in the channels where a sum
gives 0, to the side of the sign that 0 has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Vector = npt.NDArray[np.float64]
_Array = npt.NDArray[np.float32]


def affine_of_counts(
    scale: _Vector, shift: _Vector, products: int, *, at_zero: int
) -> tuple[_Array, _Array]:
    """A and b of y = a · m + b, [O] each.

    Args:
        scale: [O].
        shift: [O].
        products: K, how many products one sum has.
        at_zero: −1 or +1, the sign of 0 where one reads y, so that no y may be 0; else 0.

    Example:
        >>> import numpy as np
        >>> a, b = affine_of_counts(np.ones(1), np.zeros(1), 4, at_zero=0)
        >>> [float(a[0] * mismatches + b[0]) for mismatches in range(5)]
        [4.0, 2.0, 0.0, -2.0, -4.0]
    """
    a = (-2 * scale).astype(np.float32)
    # With the rounded a, so that its rounding is largest where sums are and not at m = K.
    b = (shift - a.astype(np.float64) * products / 2).astype(np.float32)
    if at_zero:
        # Never a number below the smallest normal one, which ARMv7 takes for 0.
        moved = np.nextafter(b, np.float32(at_zero * np.inf))
        moved = np.where(b == 0, np.float32(at_zero) * np.finfo(np.float32).tiny, moved)
        b = np.where(_gives_zero(a, b, products), moved, b)
    return a, b


def _gives_zero(a: _Array, b: _Array, products: int) -> npt.NDArray[np.bool_]:
    """Whether a count, whole or half, makes a · m + b exactly 0, channel by channel.

    Half counts stand behind the correction of a padded border.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = np.nan_to_num(-b.astype(np.float64) / a, nan=0.0, posinf=0.0, neginf=0.0)
    is_zero = np.zeros(len(a), bool)
    for step in (-1, 0, 1):
        count = (np.clip(np.round(2 * middle) + step, -products, 3 * products) / 2).astype(
            np.float32
        )
        # In two roundings, and in one, as processors with a fused multiply-add do it.
        fused = a.astype(np.float64) * count + b
        is_zero |= (a * count + b == 0) | (fused == 0)
    return is_zero
