from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.fold_constants import constant_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.double_input_channels import double_input_channels
from bibench_deploy.lowering.sign_places import sign_places
from bibench_deploy.lowering.trim_kernels import trim_kernels
from tests.deploy.geometries import Geometry, geometries, signs

SAME = Geometry((4, 4), (3, 3), pads=(1, 1, 1, 1))


def double_all(model) -> None:
    double_input_channels(model, [conv.node for conv in binary_convs(model)])


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=150, deadline=None)
@given(
    geometry=geometries(most_padding=2),
    has_batch_norm=st.booleans(),
    zeros=st.sampled_from([(), (0,), (1, 3, 4)]),
)
def test_the_doubled_layer_computes_the_same_to_the_bit_without_zeros(
    geometry, has_batch_norm, zeros, make_layer, keeps
) -> None:
    size = int(np.prod(geometry.weight_shape))
    model = make_layer(
        geometry,
        has_batch_norm=has_batch_norm,
        # A layer of nothing but zeros is none.
        zeros=tuple(place for place in zeros if place < size - 1),
    )
    keeps(double_all, model)
    (conv,) = binary_convs(model)
    assert not any(conv.facts.pads)
    assert conv.facts.zero_weights == 0
    assert set(np.unique(constant_of(conv.node.inputs[1]))) <= {-1, 1}


def test_zero_padding_becomes_plus_and_minus_one(make_layer, keeps) -> None:
    model = make_layer(SAME)
    keeps(double_all, model)
    assert operators(model) == ["Pad", "Pad", "Concat", "Less", "Where", "Conv", "Mul"]
    pads = [node for node in model.graph if node.op_type == "Pad"]
    assert [float(constant_of(node.inputs[2]).item()) for node in pads] == [1, -1]
    (conv,) = binary_convs(model)
    places = sign_places(model, conv)[0]
    assert places.shape == (4, 6, 6)
    assert (places[:2] == places[2:]).all()
    assert (places == -1).sum() == 4 * 20


def test_padding_is_taken_as_far_as_it_is_read(make_layer, keeps) -> None:
    model = make_layer(Geometry((4, 4), (3, 3), (2, 2), (1, 1, 1, 1)))
    keeps(double_all, model)
    assert binary_convs(model)[0].facts.input_shape == (1, 4, 5, 5)


def test_a_batch_norm_takes_the_doubling_back(make_layer, keeps) -> None:
    model = make_layer(SAME, has_batch_norm=True)
    keeps(double_all, model)
    assert operators(model)[-2:] == ["Conv", "BatchNormalization"]


def test_a_layer_that_the_engine_can_pad_stays(make_layer) -> None:
    model = make_layer(SAME)
    before = operators(model)
    double_input_channels(model)
    assert operators(model) == before
    assert binary_convs(model)[0].facts.pads == (1, 1, 1, 1)


def test_zero_weights_alone_leave_the_padding_to_the_layer(make_layer, keeps) -> None:
    model = make_layer(SAME, zeros=(0, 5))
    keeps(double_input_channels, model)
    assert operators(model) == ["Concat", "Less", "Where", "Conv", "Mul"]
    (conv,) = binary_convs(model)
    assert (conv.facts.pads, conv.facts.weight_shape) == ((1, 1, 1, 1), (2, 4, 3, 3))


def test_zeros_in_the_weights_and_around_the_map_take_four_copies(make_layer, keeps) -> None:
    model = make_layer(SAME, zeros=(0, 5))
    keeps(double_all, model)
    assert binary_convs(model)[0].facts.weight_shape == (2, 8, 3, 3)


def test_a_channel_that_trimming_left_nothing_but_zeros_gives_zeros(make_layer, keeps) -> None:
    # Of 3×3 taps only the middle one reads the map of one number, and there channel 0 is 0.
    model = make_layer(Geometry((1, 1), (3, 3), pads=(1, 1, 1, 1)), zeros=(4, 13))
    trim_kernels(model)
    keeps(double_input_channels, model)
    assert operators(model) == ["Concat", "Less", "Where", "Conv", "Mul"]


@pytest.mark.parametrize("product", ["Gemm<transB=1>(s, w)", "Gemm<transB=1>(s, w, b)",
                                     "Gemm(s, t)", "MatMul(s, t)"])  # fmt: skip
def test_zero_weights_of_a_fully_connected_layer(product, make_graph, keeps) -> None:
    weight = signs((3, 8))
    weight[1, 2:5] = 0
    text = f"g (float[1,8] x) => (y) {{ s = Sign(x)  y = {product} }}"
    model = make_graph(text, w=weight, t=weight.T.copy(), b=[0.5, 1.5, 2.5])
    canonical_binarization(model)
    keeps(double_input_channels, model)
    (conv,) = binary_convs(model)
    assert conv.facts.weight_shape == (3, 16)
    assert conv.facts.zero_weights == 0


def test_two_layers_on_one_sign_are_doubled_each_for_itself(make_graph, keeps) -> None:
    model = make_graph(
        "g (float[1,2,4,4] x) => (y) { s = Sign(x)  a = Conv<pads=[1,1,1,1]>(s, v)"
        "  b = Conv<pads=[1,1,1,1]>(s, w)  y = Add(a, b) }",
        v=signs((2, 2, 3, 3)),
        w=signs((2, 2, 3, 3), 1),
    )
    canonical_binarization(model)
    one = binary_convs(model)[0].node
    keeps(partial(double_input_channels, padded=[one]), model)
    shapes = sorted(conv.facts.weight_shape for conv in binary_convs(model))
    assert shapes == [(2, 2, 3, 3), (2, 4, 3, 3)]
