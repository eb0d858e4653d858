import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs, window_of
from bibench_deploy.lowering.sign_places import sign_places, source_layer
from bibench_deploy.lowering.strided_dilation import strided_dilation
from tests.deploy.geometries import Geometry, geometries


def window(model):
    (node,) = (node for node in model.graph if node.op_type == "Conv")
    return window_of(node)


@settings(max_examples=150, deadline=None)
@given(
    geometry=geometries(dilation=4, groups=(1, 2)),
    has_batch_norm=st.booleans(),
    is_binary=st.booleans(),
)
def test_no_stride_comes_with_a_dilation(
    geometry, has_batch_norm, is_binary, make_layer, keeps
) -> None:
    # A float batch norm rounds; a binary one reads whole numbers either way.
    model = make_layer(geometry, is_binary=is_binary, has_batch_norm=has_batch_norm and is_binary)
    keeps(strided_dilation, model)
    found = window(model)
    assert max(found.strides) == 1 or max(found.dilations) == 1


def test_a_stride_that_divides_the_dilation_picks_what_is_read_at_no_cost(
    make_layer, keeps
) -> None:
    geometry = Geometry((9, 9), (3, 3), (2, 2), (4, 4, 4, 4), (4, 4))
    model = make_layer(geometry)
    keeps(strided_dilation, model)
    found = window(model)
    assert (found.strides, found.dilations, found.pads) == ((1, 1), (2, 2), (2, 2, 2, 2))
    assert [node.op_type for node in model.graph] == ["Slice", "Less", "Where", "Conv"]
    (conv,) = binary_convs(model)
    assert conv.facts.input_shape == (1, 2, 5, 5)
    assert source_layer(conv.node) == "layer"
    assert sign_places(model, conv)[0, 0, 0].tolist() == [0, 2, 4, 6, 8]


def test_another_stride_is_taken_behind_the_batch_norm(make_layer, keeps) -> None:
    geometry = Geometry((9, 9), (3, 3), (2, 2), (3, 3, 3, 3), (3, 3))
    model = make_layer(geometry, has_batch_norm=True)
    keeps(strided_dilation, model)
    assert [node.op_type for node in model.graph] == [
        "Less", "Where", "Conv", "BatchNormalization", "Slice",
    ]  # fmt: skip
    assert window(model).strides == (1, 1)


def test_a_stride_along_one_axis_and_a_dilation_along_the_other_are_taken_apart(
    make_layer, keeps
) -> None:
    model = make_layer(Geometry((9, 9), (3, 3), (2, 1), (1, 2, 1, 2), (1, 2)), is_binary=False)
    keeps(strided_dilation, model)
    assert [node.op_type for node in model.graph] == ["Neg", "Conv", "Slice"]


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((9, 9), (3, 3), (2, 2), (1, 1, 1, 1)),
        Geometry((9, 9), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
        # One tap has no distance to a next one.
        Geometry((9, 9), (1, 1), (2, 2), (0, 0, 0, 0), (3, 3)),
    ],
)
def test_a_stride_or_a_dilation_alone_stays(geometry, make_layer, keeps) -> None:
    model = make_layer(geometry)
    keeps(strided_dilation, model)
    assert [node.op_type for node in model.graph] == ["Less", "Where", "Conv"]


def test_a_layer_that_reads_nothing_but_padding_is_held(make_layer, keeps) -> None:
    keeps(strided_dilation, make_layer(Geometry((1, 1), (2, 2), (2, 2), (1, 1, 2, 2), (2, 2))))
