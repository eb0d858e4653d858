from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import window_of
from bibench_deploy.lowering.widen_padding import widen_padding
from tests.deploy.geometries import Geometry, geometries


def conv_of(model):
    (node,) = (node for node in model.graph if node.op_type == "Conv")
    return node


more = st.tuples(*[st.integers(0, 2)] * 4)


@settings(max_examples=100, deadline=None)
@given(
    geometry=geometries(groups=(1, 2)),
    more=more,
    has_batch_norm=st.booleans(),
    is_binary=st.booleans(),
)
def test_a_layer_of_wider_padding_gives_what_it_gave(
    geometry, more, has_batch_norm, is_binary, make_layer, keeps
) -> None:
    model = make_layer(geometry, is_binary=is_binary, has_batch_norm=has_batch_norm and is_binary)
    steps = (*geometry.strides, 1, 1)
    pads = tuple(
        pad + extra * step for pad, extra, step in zip(geometry.pads, more, steps, strict=True)
    )
    keeps(partial(widen_padding, wider={conv_of(model): pads}), model)
    assert window_of(conv_of(model)).pads == pads


@pytest.mark.parametrize("has_batch_norm", [False, True])
def test_outputs_are_cut_behind_the_batch_norm(has_batch_norm, make_layer, keeps) -> None:
    model = make_layer(Geometry((8, 8), (5, 5), pads=(1,) * 4), has_batch_norm=has_batch_norm)
    keeps(partial(widen_padding, wider={conv_of(model): (2, 2, 2, 2)}), model)
    names = [node.op_type for node in model.graph]
    assert names == ["Less", "Where", "Conv", *["BatchNormalization"] * has_batch_norm, "Slice"]
