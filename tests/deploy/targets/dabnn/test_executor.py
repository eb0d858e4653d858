import numpy as np
import pytest

from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets.dabnn.emitter import Window
from bibench_deploy.targets.dabnn.executor import DabExecutor
from bibench_deploy.targets.dabnn.schema import DabLayer, DabModel, DabTensor, Operator

RNG = np.random.default_rng(1)
X = RNG.standard_normal((6, 6, 4)).astype(np.float32)


def run(model: DabModel, image=X) -> np.ndarray:
    return DabExecutor(model).run(image)


def signs(*shape: int) -> np.ndarray:
    return np.where(RNG.standard_normal(shape) > 0, 1, -1).astype(np.float32)


@pytest.mark.parametrize("channels", [4, 64, 100])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
def test_a_binary_convolution_counts_mismatches_and_pads_with_minus_one(
    make_dab, channels, kernel, stride, padding
) -> None:
    weight, image = signs(5, kernel, kernel, channels), signs(6, 6, channels)
    window = Window((kernel, kernel), (stride, stride), padding)

    def build(emitter, source) -> None:
        filters = emitter.filters(weight, window.strides)
        emitter.convolve(Operator.BinConv2D, source, filters, window)

    counted = run(make_dab((6, 6, channels), build), image)
    padded = np.pad(image, [(padding,) * 2] * 2 + [(0, 0)], constant_values=-1)
    height, width = window.output((6, 6))
    for y in range(height):
        for x in range(width):
            part = padded[y * stride :, x * stride :][:kernel, :kernel]
            expected = (weight != part).sum(axis=(1, 2, 3))
            np.testing.assert_array_equal(counted[y, x], expected)


@pytest.mark.parametrize("number", [0.0, -0.0, np.nan, -1e-30])
def test_what_is_not_above_zero_is_minus_one(make_dab, number) -> None:
    def build(emitter, source) -> None:
        filters = emitter.filters(np.ones((1, 1, 1, 4), np.float32), (1, 1))
        emitter.convolve(Operator.BinConv2D, source, filters, Window((1, 1)))

    model = make_dab((2, 2, 4), build)
    assert (run(model, np.full((2, 2, 4), number, np.float32)) == 4).all()
    assert (run(model, np.full((2, 2, 4), 1e-38, np.float32)) == 0).all()


def test_what_overwrites_is_seen_by_all_who_read_afterwards(make_dab) -> None:
    def build(emitter, source) -> None:
        own = emitter.copy(source)
        emitter.affine(own, np.full(4, 2, np.float32), np.full(4, 1, np.float32))
        emitter.pool(Operator.MaxPool, own, Window((1, 1)))

    np.testing.assert_array_equal(run(make_dab((6, 6, 4), build)), 2 * X + 1)


def test_the_callers_image_stays_as_it_was(make_dab) -> None:
    image = X.copy()
    model = make_dab((6, 6, 4), lambda emitter, x: emitter.pointwise(Operator.Relu, {"input": x}))
    np.testing.assert_array_equal(run(model, image), np.maximum(X, 0))
    np.testing.assert_array_equal(image, X)


def test_constants_stay_as_they_were_from_run_to_run(make_dab) -> None:
    def build(emitter, source) -> None:
        name = emitter.constant("map", np.ones((1, 6, 6, 4), np.float32))
        emitter.pointwise(Operator.Add, {"input1": name, "input2": source})

    executor = DabExecutor(make_dab((6, 6, 4), build))
    np.testing.assert_array_equal(executor.run(X), X + 1)
    np.testing.assert_array_equal(executor.run(X), X + 1)


def test_pools_round_down_and_a_max_pool_leaves_out_its_padding(make_dab) -> None:
    low, window = X - 100, Window((3, 3), (2, 2), 1)
    pooled = run(make_dab((6, 6, 4), lambda e, x: e.pool(Operator.MaxPool, x, window)), low)
    assert pooled.shape == (3, 3, 4)
    np.testing.assert_array_equal(pooled[0, 0], low[:2, :2].max(axis=(0, 1)))
    mean = run(
        make_dab((6, 6, 4), lambda e, x: e.pool(Operator.AvePool, x, Window((4, 4), (4, 4))))
    )
    assert mean.shape == (1, 1, 4)
    np.testing.assert_allclose(mean[0, 0], X[:4, :4].mean(axis=(0, 1)), rtol=1e-5)


def test_relu_prelu_and_concat(make_dab) -> None:
    slope = np.float32([0.5, -1, 2, 0])

    def build(emitter, source) -> None:
        positive = emitter.pointwise(Operator.Relu, {"input": emitter.copy(source)})
        name = emitter.constant("slope", slope)
        sloped = emitter.pointwise(Operator.PRelu, {"input": emitter.copy(source), "slope": name})
        emitter.concatenate(positive, sloped)

    expected = np.concatenate([np.maximum(X, 0), np.where(X < 0, X * slope, X)], axis=2)
    np.testing.assert_array_equal(run(make_dab((6, 6, 4), build)), expected)


def layer(operator: Operator, **values) -> DabModel:
    constants = (
        DabTensor("w", (2, 1, 1, 4), RNG.standard_normal(8).astype(np.float32)),
        DabTensor("bits", (2, 1, 1, 4), np.array([3, 0, 5, 0], np.uint64)),
        DabTensor("ones", (4,), np.ones(4, np.float32)),
        DabTensor("small", (1, 3, 3, 4), np.ones(36, np.float32)),
    )
    called = DabLayer(operator, "odd", {"output": "y", **values})
    return DabModel("x", (1, 6, 6, 4), (called,), constants)


WINDOW = {"pads": (0, 0, 0, 0), "strides": (1, 1), "dilations": (1, 1)}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (layer(Operator.Softmax, input="x"), "does not run Softmax"),
        (layer(Operator.Binarize, input="x"), "does not run Binarize"),
        (layer(Operator.Relu, input="nobody"), '"nobody", which nothing gives'),
        (layer(Operator.BinConv2D, input="x", weight="w", **WINDOW), "not there in 1 bit"),
        (layer(Operator.FpConv2D, input="x", weight="bits", **WINDOW), "not there in float32"),
        (layer(Operator.FpConv2D, input="x", weight="w", **WINDOW | {"dilations": ()}),
         "honours no dilation"),
        (layer(Operator.FpConv2D, input="x", weight="w", **WINDOW | {"pads": (0, 1, 0, 2)}),
         "pads"),
        (layer(Operator.FpConv2D, input="x", weight="w", **WINDOW | {"pads": (2**30,) * 4}),
         "pads 1073741824"),
        (layer(Operator.FpConv2D, input="x", weight="w", **WINDOW | {"strides": (0, 0)}),
         "strides"),
        (layer(Operator.Add, input1="x", input2="small"), "does not broadcast"),
        (layer(Operator.AvePool, input="x", kernel_shape=(2, 2), pads=(1, 1, 1, 1),
               strides=(1, 1)), "differs from platform"),
        (layer(Operator.MaxPool, input="x", kernel_shape=(9, 9), pads=(0, 0), strides=(1, 1)),
         "a window of"),
        (layer(Operator.Concat, inputs=("x", "x"), axis=1), "along the channels"),
        (layer(Operator.Concat, inputs=("x", "x", "x"), axis=3), "along the channels"),
    ],
)  # fmt: skip
def test_what_the_engine_would_not_run_is_one_line(model, message) -> None:
    with pytest.raises(ArtifactError, match=message):
        run(model)


def test_an_input_of_another_shape_is_one_line(make_dab) -> None:
    model = make_dab((6, 6, 4), lambda e, x: e.copy(x))
    with pytest.raises(ArtifactError, match=r"an input of \[5, 6, 4\]"):
        run(model, X[:5])
