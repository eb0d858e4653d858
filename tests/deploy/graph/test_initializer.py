from __future__ import annotations

import numpy as np

from bibench_deploy.graph.initializer import add_initializer


def test_a_name_that_is_taken_gets_a_number(make_graph) -> None:
    graph = make_graph("g (float[1,4] x) => (y) { y = Relu(x) }").graph
    names = [add_initializer(graph, "scale", np.ones(2, np.float32)).name for _ in range(3)]
    assert names == ["scale", "scale_1", "scale_2"]


def test_the_constant_is_known_to_the_graph(make_graph) -> None:
    graph = make_graph("g (float[1,4] x) => (y) { y = Relu(x) }").graph
    value = add_initializer(graph, "scale", np.arange(3, dtype=np.float32))
    assert graph.initializers["scale"] is value
    assert value.const_value.numpy().tolist() == [0, 1, 2]
