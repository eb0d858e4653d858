"""Write the models that ours are held against: `python -m benchmarks._larq_models FOLDER`.

A process of its own, for TensorFlow. `larq_resnet18.tflite` is the ResNet-18 of bibench_train
as one writes it in Keras and Larq for Larq Compute Engine; `zoo_birealnet.tflite` is Larq Zoo's
BiRealNet, where `larq_zoo` can be imported. Weights are random, those of each batch norm too:
equal ones would be stored once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

IMAGE = (224, 224, 3)
CLASSES = 1000
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


def resnet18() -> Any:
    """A Keras model: `bireal` in the ImageNet form, two blocks a stage, float shortcuts."""
    import larq
    import tensorflow as tf

    layers = tf.keras.layers

    def binary(x: Any, filters: int, strides: int) -> Any:
        x = larq.layers.QuantConv2D(
            filters, 3, strides, "same", use_bias=False,
            input_quantizer="approx_sign", kernel_quantizer="magnitude_aware_sign",
        )(x)  # fmt: skip
        return layers.BatchNormalization()(x)

    def clip(x: Any) -> Any:
        return tf.clip_by_value(x, -1.0, 1.0)

    image = layers.Input(IMAGE)
    x = layers.Conv2D(STAGES[0][0], 7, 2, "same", use_bias=False)(image)
    x = layers.MaxPool2D(3, 2, "same")(clip(layers.BatchNormalization()(x)))
    for filters, stride in STAGES:
        for strides in (stride, 1):
            shortcut = x
            if strides != 1:
                shortcut = layers.Conv2D(filters, 1, strides, use_bias=False)(shortcut)
                shortcut = layers.BatchNormalization()(shortcut)
            # The clip between both layers trains; at inference a sign alone would read it.
            x = binary(binary(x, filters, strides), filters, 1)
            x = clip(layers.add([x, shortcut]))
    # Larq's own models average so: LCE runs it faster than GlobalAveragePooling2D.
    x = layers.Flatten()(layers.AveragePooling2D(x.shape[1:3])(x))
    return tf.keras.Model(image, layers.Dense(CLASSES)(x))


def zoo_birealnet() -> Any | None:
    """Larq Zoo's BiRealNet, or None where it is not installed."""
    # It imports the data sets that it was trained on, and needs none of them here.
    sys.modules.setdefault("tensorflow_datasets", MagicMock())
    try:
        from larq_zoo.literature import BiRealNet
    except ImportError:
        return None
    return BiRealNet(input_shape=IMAGE, weights=None, num_classes=CLASSES)


def _settle(model: Any) -> None:
    import tensorflow as tf

    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            low_high = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (10, 50))
            layer.set_weights([generator.uniform(*pair, shape) for pair in low_high])
        elif layer.get_weights():
            layer.set_weights(
                [generator.normal(0, 0.05, array.shape) for array in layer.get_weights()]
            )


def main() -> None:
    """Write what can be written."""
    import larq_compute_engine

    for name, model in (("larq_resnet18", resnet18()), ("zoo_birealnet", zoo_birealnet())):
        if model is not None:
            _settle(model)
            content = larq_compute_engine.convert_keras_model(model)
            Path(sys.argv[1], f"{name}.tflite").write_bytes(content)


if __name__ == "__main__":
    main()
