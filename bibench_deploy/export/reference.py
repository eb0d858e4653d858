"""What PyTorch itself computes: the outputs and signs that an export is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bibench_deploy.verify.parity import Observation

if TYPE_CHECKING:
    import torch

_Array = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int64]


def answer(model: torch.nn.Module, images: _Array) -> _Labels:
    """The class that a module in eval mode gives to each image [N, …]."""
    import torch

    with torch.no_grad():
        batches = np.split(images, range(64, len(images), 64))
        answers = [model(torch.from_numpy(batch)).argmax(dim=1).numpy() for batch in batches]
    return np.concatenate(answers)


def observe_module(model: torch.nn.Module, inputs: _Array) -> Observation:
    """Run a hardened module on each input.

    Args:
        model: in eval mode. Signs are known where its binary layers are bibench's own.
        inputs: [N, …].
    """
    import torch

    from bibench_train.harden import HardBinaryLayer

    signs: list[list[_Array]] = []
    row: list[_Array] = []

    def keep(layer: HardBinaryLayer, arguments: tuple[torch.Tensor]) -> None:
        (x,) = arguments
        shifted = x if layer.shift is None else x + layer.shift
        row.append(np.where(shifted.numpy() >= 0, np.float32(1), np.float32(-1)))

    layers = [module for module in model.modules() if isinstance(module, HardBinaryLayer)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    outputs: list[_Array] = []
    try:
        with torch.no_grad():
            for index in range(len(inputs)):
                row.clear()
                outputs.append(model(torch.from_numpy(inputs[index : index + 1])).numpy())
                signs.append(list(row))
    finally:
        for hook in hooks:
            hook.remove()
    per_layer = tuple(np.concatenate(layer) for layer in zip(*signs, strict=True))
    return Observation(np.concatenate(outputs), per_layer)
