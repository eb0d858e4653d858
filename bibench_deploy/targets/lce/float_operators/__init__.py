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
)
from bibench_deploy.targets.lce.float_operators._operator import FloatOperator

OPERATORS: dict[str, FloatOperator] = {
    **activation.OPERATORS,
    **arithmetic.OPERATORS,
    **layout.OPERATORS,
    **linear.OPERATORS,
    **normalization.OPERATORS,
    **reduction.OPERATORS,
}
