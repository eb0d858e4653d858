"""Run a .dab model in numpy as daBNN runs it: the reference that every export is held to.

What the engine does, and this repeats:

  - BinConv2D takes x > 0 for +1 and all else for −1 (0, −0.0 and NaN too), pads with −1, and
    gives the number of mismatches m as a float, so that the sum of products is K − 2m.
  - Affine, Relu, PRelu and Add write over what they read first: their output is another
    name for the same numbers.
  - FpConv2D pads with zeros. MaxPool leaves out what is padded. Both pools round down.
  - Concat joins two maps along the channels.

Sums of ±1 are whole numbers below 2²⁴, so a float32 matrix product counts them exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bibench_deploy.errors import ArtifactError
from bibench_deploy.targets.dabnn.packing import unpack_filters
from bibench_deploy.targets.dabnn.schema import DabLayer, DabModel, Operator

_Array = npt.NDArray[np.float32]
# Numbers of a padded map: 1 GiB, which only a damaged file asks for.
_LARGEST_MAP = 2**28
# Is shown the name of each BinConv2D and the numbers whose signs it takes, [H, W, C].
_Watch = Callable[[str, _Array], None]


class DabExecutor:
    """Runs one model; its filters are unpacked once.

    Raises:
        ArtifactError: the engine has not such a layer, or what it reads is not there or has
            a shape that it cannot have.
    """

    def __init__(self, model: DabModel) -> None:
        if len(model.input_shape) != 4 or model.input_shape[0] != 1:
            raise ArtifactError(f"the input has shape {list(model.input_shape)}, not [1, H, W, C]")
        self._model = model
        stored = {tensor.name: tensor for tensor in model.tensors}
        self._constants: dict[str, _Array] = {}
        for tensor in model.tensors:
            if not tensor.is_binary:
                # The engine registers maps and vectors, and passes over all else.
                self._constants[tensor.name] = _shaped(tensor.name, tensor.data, tensor.shape)
        for layer in model.layers:
            if layer.operator not in _RUN:
                raise ArtifactError(f"{layer.name}: the engine does not run {layer.operator.name}")
            weight = stored.get(layer.text("weight"))
            if layer.operator is Operator.BinConv2D:
                if weight is None or not weight.is_binary:
                    raise ArtifactError(f"{layer.name}: its weight is not there in 1 bit")
                try:
                    strides = _pair(layer, "strides")
                    signs = unpack_filters(weight.data, weight.shape, strides)  # type: ignore[arg-type]  # is_binary: words, no floats
                except ValueError as error:
                    raise ArtifactError(f"{layer.name}: {error}") from error
                self._constants[weight.name] = signs

    def run(self, image: _Array, watch: _Watch = lambda *_: None) -> _Array:
        """Run one input.

        Args:
            image: [H, W, C].
            watch: is shown what each BinConv2D reads; it must not change it.

        Returns:
            The output of the last layer, [H, W, C].
        """
        if image.shape != self._model.input_shape[1:]:
            shape = list(self._model.input_shape[1:])
            raise ArtifactError(f"an input of {list(image.shape)}, and the model takes {shape}")
        blobs: dict[str, _Array] = {self._model.input_name: image.astype(np.float32)}
        for name, array in self._constants.items():
            # A constant map is a blob as any other; its first axis is a batch of 1.
            blobs[name] = array.copy()[0] if array.ndim == 4 and len(array) == 1 else array
        for layer in self._model.layers:
            if layer.operator is Operator.BinConv2D:
                watch(layer.name, _read(layer, blobs, "input"))
            try:
                blobs[layer.text("output")] = _RUN[layer.operator](layer, blobs, self._constants)
            except (ValueError, IndexError) as error:
                raise ArtifactError(f"{layer.name}: shapes that do not fit ({error})") from error
        return blobs[self._model.output_name]


_Blobs = dict[str, _Array]


def _read(layer: DabLayer, blobs: _Blobs, field: str) -> _Array:
    name = layer.text(field)
    if name not in blobs:
        raise ArtifactError(f'{layer.name}: it reads "{name}", which nothing gives')
    return blobs[name]


def _shaped(name: str, data: npt.NDArray[np.generic], shape: tuple[int, ...]) -> _Array:
    if data.size != int(np.prod(shape, dtype=object)):
        raise ArtifactError(f"{name}: {data.size} numbers in a shape of {list(shape)}")
    return np.asarray(data.reshape(shape), np.float32)


def _pair(layer: DabLayer, field: str) -> tuple[int, int]:
    """The first two numbers of a field; pads are vertical, horizontal, and these again."""
    numbers = layer.numbers(field)
    if len(numbers) not in (2, 4) or numbers[:2] * (len(numbers) // 2) != numbers:
        raise ValueError(f"{field} {list(numbers)}")
    if min(numbers) < (0 if field == "pads" else 1):
        raise ValueError(f"{field} {list(numbers)}")
    return numbers[0], numbers[1]


def _windows(layer: DabLayer, source: _Array, kernel: tuple[int, int], filler: float) -> _Array:
    """Every place of a sliding window, [H', W', C, kH, kW]; what does not fit is left out."""
    (top, left), (down, right) = _pair(layer, "pads"), _pair(layer, "strides")
    height, width, channels = source.shape
    if (height + 2 * top) * (width + 2 * left) * channels > _LARGEST_MAP:
        raise ValueError(f"pads {top} and {left} of a map of {height}×{width}")
    padded = np.pad(source, ((top, top), (left, left), (0, 0)), constant_values=filler)
    if min(kernel) < 1 or kernel[0] > padded.shape[0] or kernel[1] > padded.shape[1]:
        raise ValueError(f"a window of {kernel} over a map of {padded.shape[:2]}")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(0, 1))  # type: ignore[call-overload]  # numpy's types lack axes as a tuple
    return np.asarray(windows[::down, ::right])


def _convolve(layer: DabLayer, source: _Array, weight: _Array, filler: float) -> _Array:
    """A convolution [H, W, C] → [H', W', O] with filters [O, kH, kW, C]."""
    if layer.numbers("dilations") != (1, 1):
        raise ValueError("the engine honours no dilation")
    windows = _windows(layer, source, (weight.shape[1], weight.shape[2]), filler)
    columns = windows.transpose(0, 1, 3, 4, 2).reshape(-1, weight[0].size)
    product = columns @ weight.reshape(len(weight), -1).T
    return product.reshape(*windows.shape[:2], len(weight))


def _binary_convolution(layer: DabLayer, blobs: _Blobs, constants: _Blobs) -> _Array:
    weight = constants[layer.text("weight")]
    source = _read(layer, blobs, "input")
    signs = (source > 0) * np.float32(2) - np.float32(1)
    products = _convolve(layer, signs, weight, -1.0)
    return (np.float32(weight[0].size) - products) / 2


def _float_convolution(layer: DabLayer, blobs: _Blobs, constants: _Blobs) -> _Array:
    weight = constants.get(layer.text("weight"))
    if weight is None or weight.ndim != 4:
        raise ValueError("its weight is not there in float32")
    output = _convolve(layer, _read(layer, blobs, "input"), weight, 0.0)
    return output + _read(layer, blobs, "bias") if layer.text("bias") else output


def _max_pool(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    lowest = -float(np.finfo(np.float32).max)
    kernel = _pair(layer, "kernel_shape")
    windows = _windows(layer, _read(layer, blobs, "input"), kernel, lowest)
    taps = [windows[..., row, column] for row, column in np.ndindex(kernel)]
    return np.asarray(np.maximum.reduce(taps))


def _average_pool(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    if _pair(layer, "pads") != (0, 0):
        raise ValueError("an average over padding, which differs from platform to platform")
    kernel = _pair(layer, "kernel_shape")
    windows = _windows(layer, _read(layer, blobs, "input"), kernel, 0.0)
    taps = [windows[..., row, column] for row, column in np.ndindex(kernel)]
    total: _Array = np.add.reduce(taps)
    return total / np.float32(len(taps))


def _affine(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    blob = _read(layer, blobs, "input")
    blob *= _read(layer, blobs, "a")
    blob += _read(layer, blobs, "b")
    return blob


def _relu(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    blob = _read(layer, blobs, "input")
    return np.maximum(blob, 0, out=blob)


def _parametric_relu(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    blob, slope = _read(layer, blobs, "input"), _read(layer, blobs, "slope")
    return np.multiply(blob, slope, out=blob, where=blob < 0)


def _add(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    blob, other = _read(layer, blobs, "input1"), _read(layer, blobs, "input2")
    if blob.shape != other.shape:
        raise ValueError(f"the engine does not broadcast {other.shape} to {blob.shape}")
    blob += other
    return blob


def _concatenate(layer: DabLayer, blobs: _Blobs, _: _Blobs) -> _Array:
    names = layer.texts("inputs")
    if len(names) != 2 or layer.values.get("axis") != 3 or not set(names) <= blobs.keys():
        raise ValueError("the engine joins two maps along the channels")
    return np.concatenate([blobs[name] for name in names], axis=2)


_RUN: dict[Operator, Callable[[DabLayer, _Blobs, _Blobs], _Array]] = {
    Operator.Add: _add,
    Operator.Affine: _affine,
    Operator.AvePool: _average_pool,
    Operator.BinConv2D: _binary_convolution,
    Operator.Concat: _concatenate,
    Operator.FpConv2D: _float_convolution,
    Operator.MaxPool: _max_pool,
    Operator.PRelu: _parametric_relu,
    Operator.Relu: _relu,
}
