"""How fast and lean the binarizers are, against the same formulas in plain autograd.

The tensors are those of a training step of ResNet-18 (CIFAR form), batch 64, in channels-last
memory: the input and weight of each of its 16 binary convolutions, and for the algorithms whose
scale varies within an output, that output. All layers go forward, then all go backward; the
convolutions themselves are left out.

Time is processor time of one thread, so that other programs do not count; both ways take turns,
and the ratio is the median of their ratios. Memory is the largest sum of what torch's allocator had
given out at one time beyond weights, outputs and the gradients that arrive, from the profiler's
record of every allocation; inputs count, since a network frees those that nobody keeps. Gradients
are compared in 64 bits, where a weight that lies on a clamp's bound to the last bit of 32 cannot
hide the rest.

Promise: time at most 0.5 of plain autograd for bireal, reactnet and recu, 0.75 for xnor, 0.3 for
fda's estimator alone; gradients equal to 1e-5 of the largest; memory not above plain autograd.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch  # noqa: TID253 - this measures training
from torch import Tensor, nn  # noqa: TID253 - this measures training
from torch.profiler import ProfilerActivity, profile  # noqa: TID253 - this measures training

from benchmarks._plain_autograd import WAYS, Operands, Way
from bibench_train import algorithms, architectures  # noqa: TID253 - this measures training
from bibench_train.layers import (  # noqa: TID253 - this measures training
    BinaryConv2d,
    BinaryLayer,
    binary_layers,
    set_output_sizes,
)
from bibench_train.ops.fourier_sign import sign_fourier  # noqa: TID253 - this measures training

BATCH = 64
REPEATS = 5
IMAGE = (3, 32, 32)
PROMISES = {"bireal": 0.5, "reactnet": 0.5, "recu": 0.5, "xnor": 0.75, "fda estimator": 0.3}
EPOCHS = {"biper": 199}
"""The epoch of 200 in which an algorithm is measured, where it is not the first."""


@dataclass
class Case:
    """One layer with everything that a step gives to its binarizer."""

    layer: BinaryLayer
    x: Tensor
    output: Tensor
    upstream: tuple[Tensor, ...]

    @property
    def trained(self) -> list[Tensor]:
        """What gradients are taken of."""
        return [self.x, self.output, self.layer.weight, *self.layer.binarizer.parameters()]


def make_cases(algorithm: str, batch: int, dtype: torch.dtype) -> list[Case]:
    """The binary convolutions of ResNet-18 with inputs as Hardtanh gives them."""
    torch.manual_seed(0)
    found = algorithms.load(algorithm)
    model = architectures.build("resnet18", algorithm=algorithm, num_classes=10, form="cifar")
    set_output_sizes(model, IMAGE)
    shapes: dict[nn.Module, tuple[torch.Size, torch.Size]] = {}
    for _, layer in binary_layers(model):
        layer.register_forward_hook(
            lambda layer, args, output: shapes.update({layer: (args[0].shape, output.shape)})
        )
    with torch.no_grad():
        model.eval()(torch.zeros(1, *IMAGE))
    cases = []
    for layer, (of_input, of_output) in shapes.items():
        assert isinstance(layer, BinaryConv2d)
        assert found is not None
        layer.train().to(dtype=dtype, memory_format=torch.channels_last)
        layer.binarizer.start_epoch(EPOCHS.get(algorithm, 0), 200)
        x = _normal(batch, of_input, dtype).clamp_(-1, 1)
        output = _normal(batch, of_output, dtype)
        weight = torch.randn_like(layer.weight)
        upstream = (_normal(batch, of_input, dtype), weight, torch.randn_like(output))
        cases.append(Case(layer, x.requires_grad_(), output.requires_grad_(), upstream))
    return cases


def ours(layer: BinaryLayer, x: Tensor) -> Operands:
    """What this project's layers give to their convolution."""
    return layer.binarizer.binarize_input(x), layer.binarizer.binarize_weight(layer.weight)


def our_rescale(layer: BinaryLayer, x: Tensor, output: Tensor) -> Tensor:
    """What they do with its result."""
    return layer.binarizer.rescale(output, layer.weight, x)


def our_fda_estimator(layer: BinaryLayer, x: Tensor) -> Operands:
    """FDA-BNN's estimator alone."""
    terms = torch.tensor(9)
    return sign_fourier(x, terms), sign_fourier(layer.weight, terms)


def step(
    cases: list[Case], way: Way, makes_inputs: bool = False
) -> list[tuple[Tensor | None, ...]]:
    """Forward through all cases, then backward; the gradients, last case first.

    Args:
        cases: In the order of the network.
        way: What is measured.
        makes_inputs: Copy each input when its layer comes, as if the layer before made it.
    """
    begun = []
    for case in cases:
        # No leaf either way: an activation is none.
        x = case.x.clone() if makes_inputs else case.x.view_as(case.x)
        roots: tuple[Tensor, ...] = way.binarize(case.layer, x)
        if way.rescale:
            roots = (*roots, way.rescale(case.layer, x, case.output))
        begun.append(roots)
        del x, roots
    gradients = []
    for case in reversed(cases):
        roots = begun.pop()
        upstream = case.upstream[: len(roots)]
        gradients.append(torch.autograd.grad(roots, case.trained, upstream, allow_unused=True))
    return gradients


def peak_memory_mib(run: Callable[[], object]) -> float:
    """The most that the allocator had given out at one time while `run` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def largest_difference(algorithm: str, way: Way, reference: Way) -> float:
    """Between gradients, relative to the largest of their kind and layer; in 64 bits."""
    cases = make_cases(algorithm, 2, torch.float64)
    largest = 0.0
    for found, expected in zip(step(cases, way), step(cases, reference), strict=True):
        for one, other in zip(found, expected, strict=True):
            if one is not None and other is not None:
                scale = other.abs().max().clamp(min=1e-300)
                largest = max(largest, ((one - other).abs().max() / scale).item())
    return largest


def compare(name: str) -> str:
    """One line of the table."""
    algorithm = name.partition(" ")[0]
    reference = WAYS[name]
    way = Way(ours if name == algorithm else our_fda_estimator, reference.rescale and our_rescale)
    cases = make_cases(algorithm, BATCH, torch.float32)
    step(cases, way)
    step(cases, reference)
    ours_mib = peak_memory_mib(lambda: step(cases, way, makes_inputs=True))
    plain_mib = peak_memory_mib(lambda: step(cases, reference, makes_inputs=True))
    times = []
    for _ in range(REPEATS):
        begun_at = time.process_time()
        step(cases, way)
        turned_at = time.process_time()
        step(cases, reference)
        times.append((turned_at - begun_at, time.process_time() - turned_at))
    fast, slow = (median(seconds) for seconds in zip(*times, strict=True))
    ratio = median(a / b for a, b in times)
    promise = f"(promise {PROMISES[name]})" if name in PROMISES else ""
    difference = largest_difference(algorithm, way, reference)
    return (
        f"  {name:13s} {ratio:5.2f} {promise:14s} {fast * 1e3:5.0f} of {slow * 1e3:5.0f} ms   "
        f"gradients {difference:.0e}   {ours_mib:5.0f} of {plain_mib:5.0f} MiB"
    )


def measure() -> str:
    """A table: one line for each algorithm."""
    torch.set_num_threads(1)
    head = (
        f"binarizers of ResNet-18 (CIFAR), batch {BATCH}, forward and backward, time as a share of "
        "plain autograd (promise for gradients 1e-05, for memory: not above)"
    )
    return "\n".join([head, *map(compare, WAYS)])


def _normal(batch: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.randn(batch, *shape[1:], dtype=dtype).to(memory_format=torch.channels_last)
