import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import shape_of

POOLINGS = {
    "MaxPool": lambda x, options: torch.nn.functional.max_pool2d(x, **options),
    "AveragePool": lambda x, options: torch.nn.functional.avg_pool2d(
        x, **options, count_include_pad=False
    ),
    "AveragePool, count_include_pad=1": lambda x, options: torch.nn.functional.avg_pool2d(
        x, **options, count_include_pad=True
    ),
}
sides = st.integers(1, 4)


@settings(max_examples=150, deadline=None)
@given(
    pooling=st.sampled_from(list(POOLINGS)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(sides, sides),
    stride=st.tuples(sides, sides),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_a_pooling_has_the_shape_and_the_numbers_that_pytorch_gives_it(
    pooling, size, kernel, stride, padding, make_graph, run_graph
) -> None:
    assume(all(2 * pad <= side for pad, side in zip(padding, kernel, strict=True)))
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    # Where a window is shorter than its stride, both axes must agree on dropping one.
    assume(all(k >= s for k, s in zip(kernel, stride, strict=True)) or size[0] == size[1])
    operator, _, option = pooling.partition(",")
    if any(k < s for k, s in zip(kernel, stride, strict=True)):
        kernel, stride, padding = (kernel[0],) * 2, (stride[0],) * 2, (padding[0],) * 2
        assume(size[0] + 2 * padding[0] >= kernel[0])
    model = make_graph(
        f"g (float[1,1,{size[0]},{size[1]}] x) => (y) {{ y = {operator}<ceil_mode=1,"
        f" kernel_shape=[{kernel[0]},{kernel[1]}], strides=[{stride[0]},{stride[1]}],"
        f" pads=[{padding[0]},{padding[1]},{padding[0]},{padding[1]}]"
        f"{',' + option if option else ''}>(x) }}"
    )
    x = np.random.default_rng(0).standard_normal((1, 1, *size)).astype(np.float32)
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": True}
    expected = POOLINGS[pooling](torch.tensor(x), options).numpy()
    assert shape_of(model.graph.outputs[0]) == expected.shape
    np.testing.assert_allclose(run_graph(model, x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "sizes", "shape"),
    [
        ("kernel_shape=[3,3], strides=[3,3], pads=[1,1,1,1]", "8,8", (3, 3)),
        ("kernel_shape=[3,3], strides=[3,3], pads=[1,1,1,1]", "9,8", (4, 3)),
        ("kernel_shape=[2,2], strides=[3,3], pads=[1,1,1,1]", "8,8", (3, 3)),
        ("kernel_shape=[3,3], strides=[2,2]", "8,8", (4, 4)),
    ],
)
def test_shapes_behind_a_pooling_are_those_that_are_computed(
    pooling, sizes, shape, make_graph, run_graph
) -> None:
    model = make_graph(
        f"g (float[1,1,{sizes}] x) => (y) {{ p = MaxPool<ceil_mode=1, {pooling}>(x)  y = Relu(p) }}"
    )
    size = [int(number) for number in sizes.split(",")]
    x = np.random.default_rng(0).standard_normal((1, 1, *size)).astype(np.float32)
    assert shape_of(model.graph.outputs[0]) == run_graph(model, x).shape == (1, 1, *shape)
