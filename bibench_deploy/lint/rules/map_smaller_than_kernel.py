"""BIB303 map-smaller-than-kernel: the map that a layer slides over is smaller than its kernel.

Only a part of the kernel ever meets numbers, the rest meets padding. Optimised kernels of Larq
Compute Engine compute wrong numbers there; export trims such kernels to the part that is used.
A target that cannot do so refuses the layer.

Bad:   a 3×3 convolution on a 1×1 map                # a small image, many strides
Good:  a larger input, or a 1×1 convolution there

Rests on: LCE's optimised bconv2d kernels at H < k, by experiment (tests of the target lce).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from bibench_deploy.lint.finding import Severity
from bibench_deploy.lint.network import Network
from bibench_deploy.lint.rules._rule import Defect, Rule


def _check(network: Network) -> Iterator[Defect]:
    for facts in network.layers:
        if facts.exceeds_map:
            kernel, sizes = facts.weight_shape[2:], facts.input_shape[2:]
            shapes = ["×".join(map(str, shape)) for shape in (kernel, sizes)]
            yield Defect(
                facts.name,
                Severity.INFO,
                f"a {shapes[0]} kernel on a {shapes[1]} map: of {prod(kernel)} places, those "
                "beyond the map meet padding alone",
                "use a larger input, or a smaller kernel there",
            )


RULE = Rule("BIB303", "map-smaller-than-kernel", _check)
