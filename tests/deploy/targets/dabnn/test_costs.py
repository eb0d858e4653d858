import numpy as np

from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.dabnn import TARGET

SIGNS = np.where(np.random.default_rng(0).standard_normal((8, 8, 3, 3)) >= 0, 1.0, -1.0)
LAYER = "g (float[1,8,8,8] x) => (y) {{ s = Sign(x)  [layer] y = Conv<pads={}>(s, w) }}"


def told(model, **options) -> list[tuple[str, str, str]]:
    costs = TARGET.examine(model, WriteOptions(**options)).costs
    return [(cost.rule, cost.node, cost.message) for cost in costs if not cost.is_small]


def test_what_becomes_of_zero_padding_is_told(make_graph) -> None:
    model = make_graph(LAYER.format("[1,1,1,1]"), w=SIGNS)
    assert told(model, padding="exact") == [
        ("zero-padding", "layer", "pads with 0, so a constant map is added to its output")
    ]
    assert told(model, padding="minus-one") == [
        ("zero-padding", "layer", "pads with −1 in place of 0, so its outputs are others")
    ]
    # What is refused has no price.
    assert told(model) == []
    assert told(make_graph(LAYER.format("[0,0,0,0]"), w=SIGNS), padding="exact") == []


def test_a_copy_is_information(make_graph) -> None:
    model = make_graph("g (float[1,4,4,4] x) => (y) { [one] y = Relu(x) }")
    (cost,) = TARGET.examine(model).costs
    assert (cost.rule, cost.node, cost.is_small) == ("overwritten-map", "one", True)
    plain = make_graph("g (float[1,4,4,4] x) => (y) { c = Conv(x, w)  y = Relu(c) }",
                       w=SIGNS[:4, :4, :1, :1])  # fmt: skip
    assert TARGET.examine(plain).costs == []
