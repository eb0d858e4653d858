"""The float part of a network: one entry for each operator of ONNX that Keras and LCE hold.

An entry says when it can be held and what it becomes, so that refusals and the model's
builder cannot drift apart. Each file is one family of operators.
"""

from bibench_deploy.targets.lce.float_operators import (
    activation,
    arithmetic,
    layout,
    linear,
    normalization,
    reduction,
    resize,
    transposed_convolution,
)
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator

_FAMILIES = (
    activation,
    arithmetic,
    layout,
    linear,
    normalization,
    reduction,
    resize,
    transposed_convolution,
)

OPERATORS: dict[str, FloatOperator] = {
    name: operator for family in _FAMILIES for name, operator in family.OPERATORS.items()
}
