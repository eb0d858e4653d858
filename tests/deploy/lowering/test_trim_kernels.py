from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs, window_of
from bibench_deploy.lowering.sign_places import sign_places
from bibench_deploy.lowering.trim_kernels import trim_kernels
from tests.deploy.geometries import Geometry, geometries


@settings(max_examples=150, deadline=None)
@given(
    geometry=geometries(size=6, kernel=7, most_padding=2, groups=(1, 2)),
    is_binary=st.booleans(),
)
def test_a_trimmed_layer_computes_the_same(geometry, is_binary, make_layer, keeps) -> None:
    model = make_layer(geometry, is_binary=is_binary)
    keeps(trim_kernels, model)


def window(model):
    (node,) = (node for node in model.graph if node.op_type == "Conv")
    return window_of(node)


def test_on_a_map_of_one_number_the_middle_tap_is_left(make_layer, keeps) -> None:
    model = make_layer(Geometry((1, 1), (3, 3), pads=(1, 1, 1, 1)))
    keeps(trim_kernels, model)
    assert (window(model).kernel, window(model).pads) == ((1, 1), (0, 0, 0, 0))
    assert binary_convs(model)[0].facts.weight_shape == (2, 2, 1, 1)


def test_along_each_axis_only_taps_that_read_numbers_are_left(make_layer, keeps) -> None:
    # A row of 7: three taps across are read, one down.
    model = make_layer(Geometry((1, 7), (3, 3), pads=(1, 1, 1, 1)), is_binary=False)
    keeps(trim_kernels, model)
    assert (window(model).kernel, window(model).pads) == ((1, 3), (0, 1, 0, 1))


def test_where_trimmed_taps_would_read_more_the_map_is_cut(make_layer, keeps) -> None:
    # The first tap reads places −1 and 2, of which the map has neither.
    model = make_layer(Geometry((2, 2), (2, 2), (3, 3), (1, 1, 3, 3), (2, 2)))
    keeps(trim_kernels, model)
    assert window(model).kernel == (1, 1)
    (conv,) = binary_convs(model)
    assert sign_places(model, conv).reshape(-1).tolist() == [3, 7]


def test_a_kernel_that_reads_numbers_everywhere_stays(make_layer) -> None:
    model = make_layer(Geometry((5, 5), (3, 3), pads=(1, 1, 1, 1)))
    trim_kernels(model)
    assert window(model).kernel == (3, 3)


def test_a_kernel_that_reads_nothing_at_all_stays_what_it_is(make_layer, keeps) -> None:
    model = make_layer(Geometry((1, 1), (2, 2), (2, 2), (1, 1, 2, 2), (2, 2)))
    keeps(trim_kernels, model)
    assert window(model).kernel == (2, 2)


def test_taps_that_are_all_zero_do_not_make_a_layer_float(make_layer, keeps) -> None:
    model = make_layer(Geometry((1, 1), (3, 3), pads=(1, 1, 1, 1), inputs=1, outputs=1), zeros=(4,))
    keeps(trim_kernels, model)
    assert len(binary_convs(model)) == 1
