"""Every kernel, stride, padding, dilation and size that a convolution may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """One convolution; `pads` are (top, left, bottom, right)."""

    size: Pair
    kernel: Pair
    strides: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    group: int = 1
    inputs: int = 2
    outputs: int = 2

    @property
    def output_size(self) -> Pair:
        """Height and width of the result; not positive where the kernel finds no place."""
        sizes = [
            (self.size[axis] + self.pads[axis] + self.pads[axis + 2]
             - (self.kernel[axis] - 1) * self.dilations[axis] - 1) // self.strides[axis] + 1
            for axis in (0, 1)
        ]  # fmt: skip
        return sizes[0], sizes[1]

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.outputs, self.inputs // self.group, *self.kernel)

    def attributes(self) -> str:
        """As text of a node: `<pads=[1,1,1,1], …>`."""
        numbers = {
            "pads": self.pads, "strides": self.strides, "dilations": self.dilations,
        }  # fmt: skip
        parts = [f"{key}=[{','.join(map(str, value))}]" for key, value in numbers.items()]
        return f"<{', '.join([*parts, f'group={self.group}'])}>"


def signs(shape: Any, seed: int = 0) -> np.ndarray:
    """±1 at random."""
    return np.where(np.random.default_rng(seed).standard_normal(shape) >= 0, 1.0, -1.0)


@st.composite
def geometries(
    draw: Any,
    kernel: int = 5,
    stride: int = 3,
    dilation: int = 3,
    size: int = 12,
    groups: tuple[int, ...] = (1,),
    channels: tuple[int, ...] = (2,),
    outputs: tuple[int, ...] = (1, 2, 3),
    most_padding: int = 0,
) -> Geometry:
    """A window that gives at least one number; it pads up to its kernel plus `most_padding`.

    PyTorch pads alike on both sides; ONNX files of others need not.
    """
    pair = lambda most: st.tuples(st.integers(1, most), st.integers(1, most))  # noqa: E731 - as short as what it stands for
    # Equal sides are what most networks have.
    both = lambda most: st.integers(1, most).map(lambda one: (one, one)) | pair(most)  # noqa: E731 - as short as what it stands for
    kernels = draw(both(kernel))
    group = draw(st.sampled_from(groups))
    pads = [st.integers(0, side + most_padding) for side in kernels]
    alike = st.tuples(*pads).map(lambda two: two * 2)
    uneven = st.tuples(*pads, *pads)
    drawn = Geometry(
        size=draw(both(size)),
        kernel=kernels,
        strides=draw(both(stride)),
        pads=draw(alike | uneven),
        dilations=draw(st.just((1, 1)) | both(dilation)),
        group=group,
        inputs=draw(st.sampled_from(channels)) * group,
        outputs=draw(st.sampled_from(outputs)) * group,
    )
    # Where the kernel is larger than the padded map, the map grows.
    missing = [max(1 - number, 0) * drawn.strides[axis] for axis, number in
               enumerate(drawn.output_size)]  # fmt: skip
    sizes = (drawn.size[0] + missing[0], drawn.size[1] + missing[1])
    return Geometry(**{**drawn.__dict__, "size": sizes})
