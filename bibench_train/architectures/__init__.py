"""Network architectures, one family per file; they ask for layers, never for algorithms.

A new file is found by itself: it defines `ARCHITECTURES`, a dict of name to `Architecture`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from bibench_train import algorithms
from bibench_train.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from bibench_train.algorithms._algorithm import Algorithm
    from bibench_train.architectures._architecture import Architecture

_IMAGE_SIZE = {"cifar": (32, 32), "imagenet": (224, 224)}
# Between the two sizes that the forms are made for, on a logarithmic scale.
_IMAGENET_FROM_PIXELS = 96


def all_architectures() -> dict[str, Architecture]:
    """Every architecture of every family file, sorted by name; imports torch."""
    found: dict[str, Architecture] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name[0] != "_":
            found.update(importlib.import_module(f"{__name__}.{module.name}").ARCHITECTURES)
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """The names that `build` takes, sorted.

    Example:
        >>> "resnet20" in names()
        True
    """
    return tuple(all_architectures())


def load(name: str) -> Architecture:
    """The architecture of this name.

    Raises:
        UnknownNameError: There is none; lists the valid names.
    """
    found = all_architectures()
    if name not in found:
        raise UnknownNameError("architecture", name, tuple(found))
    return found[name]


def form_for(name: str, image_size: int) -> str:
    """The form of an architecture that suits images of this height and width in pixels.

    Example:
        >>> form_for("resnet18", 32), form_for("resnet18", 224), form_for("resnet20", 224)
        ('cifar', 'imagenet', 'cifar')
    """
    forms = load(name).forms
    wanted = "imagenet" if image_size >= _IMAGENET_FROM_PIXELS else "cifar"
    return wanted if wanted in forms else forms[0]


def build(
    name: str,
    *,
    algorithm: str | Algorithm | None = "fp32",
    num_classes: int = 10,
    in_channels: int = 3,
    form: str | None = None,
    image_size: tuple[int, int] | None = None,
    **options: object,
) -> nn.Module:
    """Build an architecture with freshly initialised weights, drawn from torch's global generator.

    Args:
        name: One of `names()`.
        algorithm: A name of `algorithms`, "fp32" (or None) for float layers, or an `Algorithm`.
        num_classes: Outputs of the last layer.
        in_channels: Channels of the image.
        form: "cifar" or "imagenet"; None takes the architecture's default, see `form_for`.
        image_size: (H, W) of the images; None takes what the form is made for. It matters to
            algorithms whose parameters have the size of a layer's output.
        options: The family's own, such as `downsample` of the ResNets.

    Returns:
        A model in training mode, [N, in_channels, H, W] → logits [N, num_classes].

    Raises:
        UnknownNameError: No such architecture or algorithm.
        ValueError: The architecture has no such form.

    Example:
        >>> model = build("resnet20", algorithm="bireal")
        >>> sum(p.numel() for p in model.parameters())
        272474
    """
    from bibench_train.layers import set_output_sizes

    architecture = load(name)
    form = form or architecture.forms[0]
    if form not in architecture.forms:
        raise ValueError(f'{name} has no form "{form}"; one of: {", ".join(architecture.forms)}')
    model = architecture.make(
        algorithm=algorithms.load(algorithm) if isinstance(algorithm, str) else algorithm,
        num_classes=num_classes,
        in_channels=in_channels,
        form=form,
        **options,
    )
    set_output_sizes(model, (in_channels, *(image_size or _IMAGE_SIZE[form])))
    return model
