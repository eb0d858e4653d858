import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs, shape_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.double_input_channels import double_input_channels
from bibench_deploy.lowering.fold_channel_affine import fold_channel_affine
from bibench_deploy.lowering.layer_input import before_sign, feed, new_pad, new_slice
from bibench_deploy.lowering.sign_places import sign_places
from bibench_deploy.lowering.split_groups import split_groups
from bibench_deploy.lowering.strided_dilation import strided_dilation
from bibench_deploy.lowering.trim_kernels import trim_kernels
from tests.deploy.geometries import Geometry, geometries, signs


def double_all(model: ir.Model) -> None:
    double_input_channels(model, [conv.node for conv in binary_convs(model)])


PASSES = [split_groups, strided_dilation, trim_kernels, double_all]


@settings(max_examples=80, deadline=None)
@given(
    first=geometries(size=6, groups=(1, 2), outputs=(4,)),
    second=geometries(groups=(1, 2, 4), outputs=(2,)),
    has_batch_norm=st.booleans(),
)
def test_passes_rewrite_a_layer_that_reads_what_they_have_rewritten(
    first, second, has_batch_norm, make_graph, keeps
) -> None:
    channels = first.outputs
    assume(channels % second.group == 0)
    second = Geometry(**{**second.__dict__, "size": first.output_size, "inputs": channels})
    assume(min(second.output_size) > 0)
    norm = "b = BatchNormalization(a, gamma, beta, mean, variance)" if has_batch_norm else ""
    generator = np.random.default_rng(2)
    arrays = {key: generator.standard_normal(channels) for key in ("gamma", "beta", "mean")}
    model = make_graph(
        f"g (float[1,{first.inputs},{first.size[0]},{first.size[1]}] x) => (y) {{"
        f" s = Sign(x)  a = Conv{first.attributes()}(s, v)  {norm}"
        f" t = Sign({'b' if has_batch_norm else 'a'})  y = Conv{second.attributes()}(t, w) }}",
        v=signs(first.weight_shape),
        w=signs(second.weight_shape, 1),
        variance=generator.uniform(0.5, 2, channels),
        **arrays,
    )
    canonical_binarization(model)
    fold_channel_affine(model)
    for lower in PASSES:
        keeps(lower, model)
    for conv in binary_convs(model):
        assert (conv.facts.group, any(conv.facts.pads)) == (1, False)
        sign_places(model, conv)


@pytest.fixture
def shared(make_graph):
    """Two layers on one sign."""
    model = make_graph(
        "g (float[1,2,4,4] x) => (y) { s = Sign(x)  a = Conv(s, v)  b = Conv(s, w)"
        "  y = Add(a, b) }",
        v=signs((2, 2, 2, 2)),
        w=signs((2, 2, 2, 2), 1),
    )
    canonical_binarization(model)
    return model


def test_a_layer_that_is_fed_gets_a_sign_of_its_own(shared) -> None:
    one, other = binary_convs(shared)
    part = new_slice(shared.graph, before_sign(one), {2: slice(0, 3), 3: slice(1, 4)}, "part")
    feed(shared.graph, one.node, one, [part])
    one, other = binary_convs(shared)
    assert before_sign(one) is part.outputs[0]
    assert before_sign(other).name == "x"
    assert sign_places(shared, one)[0, 0].tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]


def test_slices_and_pads_know_their_shapes(shared) -> None:
    source = shared.graph.inputs[0]
    graph = shared.graph
    part = new_slice(graph, source, {1: slice(1, 2), 3: slice(1, None, 2)}, "part")
    assert shape_of(part.outputs[0]) == (1, 1, 4, 2)
    assert shape_of(new_pad(graph, source, (1, 2, 3, 4), -1.0, "pad").outputs[0]) == (1, 2, 8, 10)
