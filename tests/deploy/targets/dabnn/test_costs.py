import numpy as np

from bibench_deploy.targets.dabnn import TARGET

WEIGHT = np.random.default_rng(0).standard_normal((4, 4, 1, 1))
CLIP = "g (float[1,4,4,4] x) => (y) {{ c = Conv(x, w)  [clip] h = Clip(c, low, high)  {} }}"


def told(make_graph, text: str) -> list[tuple[str, str, bool]]:
    signs = np.where(WEIGHT > 0, 1.0, -1.0)
    model = make_graph(text, w=WEIGHT, v=signs, low=-1.0, high=1.0)
    costs = TARGET.examine(model).costs
    return [(cost.rule, cost.node, cost.is_small) for cost in costs]


def test_a_clip_that_a_shortcut_reads_has_a_price_and_one_that_signs_read_has_none(
    make_graph,
) -> None:
    shortcut = CLIP.format("s = PlusMinus(h)  d = Conv(s, v)  y = Add(d, h)")
    assert told(make_graph, shortcut) == [("clip-kept", "clip", False)]
    assert told(make_graph, CLIP.format("s = PlusMinus(h)  y = Conv(s, v)")) == []


def test_a_copy_is_information(make_graph) -> None:
    text = "g (float[1,4,4,4] x) => (y) {{ {}  [one] y = Relu({}) }}"
    assert told(make_graph, text.format("", "x")) == [("overwritten-map", "one", True)]
    assert told(make_graph, text.format("c = Conv(x, w)", "c")) == []


def test_what_is_refused_has_no_price(make_graph) -> None:
    assert told(make_graph, CLIP.format("y = Softmax(h)")) == []
