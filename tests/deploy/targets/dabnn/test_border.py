import numpy as np
import pytest

from bibench_deploy.targets.dabnn.border import border_of
from bibench_deploy.targets.dabnn.emitter import Window


def dots(x: np.ndarray, kernels: np.ndarray, window: Window, filler: float) -> np.ndarray:
    """A padded convolution, place by place."""
    p, (down, right) = window.padding, window.strides
    padded = np.pad(x, ((p, p), (p, p), (0, 0)), constant_values=filler)
    height, width = window.output(x.shape[:2])
    outputs, rows, columns, _ = kernels.shape
    result = np.zeros((height, width, outputs))
    for y in range(height):
        for z in range(width):
            part = padded[y * down : y * down + rows, z * right : z * right + columns]
            result[y, z] = (kernels * part).sum(axis=(1, 2, 3))
    return result


@pytest.mark.parametrize("pad_value", [0.0, 1.0])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(6, 3, 1, 1), (7, 3, 2, 1), (6, 5, 1, 2), (4, 3, 1, 2), (5, 2, 1, 1), (2, 3, 1, 1)],
)
def test_counts_with_the_border_are_those_of_the_padding(
    size, kernel, stride, padding, pad_value
) -> None:
    generator = np.random.default_rng(size)
    x = np.where(generator.standard_normal((size, size, 3)) > 0, 1.0, -1.0)
    kernels = np.where(generator.standard_normal((4, kernel, kernel, 3)) > 0, 1.0, -1.0)
    window = Window((kernel, kernel), (stride, stride), padding)
    counts = (kernels[0].size - dots(x, kernels, window, -1.0)) / 2
    border = border_of(kernels.astype(np.float32), x.shape, window, pad_value)
    expected = (kernels[0].size - dots(x, kernels, window, pad_value)) / 2
    np.testing.assert_array_equal(counts + border[0], expected)
    assert border.dtype == np.float32
