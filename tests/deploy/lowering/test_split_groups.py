from hypothesis import given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.lowering.sign_places import sign_places, source_layer
from bibench_deploy.lowering.split_groups import split_groups
from tests.deploy.geometries import Geometry, geometries

GROUPED = Geometry((5, 5), (3, 3), pads=(1, 1, 1, 1), group=3, inputs=6, outputs=9)


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=60, deadline=None)
@given(geometry=geometries(groups=(2, 3, 4), channels=(1, 2)), has_batch_norm=st.booleans())
def test_the_groups_together_compute_what_the_whole_did(
    geometry, has_batch_norm, make_layer, keeps
) -> None:
    model = make_layer(geometry, has_batch_norm=has_batch_norm)
    keeps(split_groups, model)
    pieces = binary_convs(model)
    assert len(pieces) == geometry.group
    assert {piece.facts.group for piece in pieces} == {1}


def test_each_piece_has_its_part_of_the_batch_norm_behind_it(make_layer, keeps) -> None:
    model = make_layer(GROUPED, has_batch_norm=True)
    keeps(split_groups, model)
    piece = ["Slice", "Less", "Where", "Conv", "BatchNormalization"]
    assert operators(model) == [*piece * 3, "Concat"]


def test_the_bias_of_a_layer_is_split_too(make_graph, keeps) -> None:
    from bibench_deploy.lowering.canonical_binarization import canonical_binarization
    from tests.deploy.geometries import signs

    model = make_graph(
        "g (float[1,4,3,3] x) => (y) { s = Sign(x)  y = Conv<group=2>(s, w, b) }",
        w=signs((4, 2, 3, 3)),
        b=[1.0, 2.0, 3.0, 4.0],
    )
    canonical_binarization(model)
    keeps(split_groups, model)
    assert len(binary_convs(model)) == 2


def test_pieces_belong_to_the_source_layer_and_read_its_signs(make_layer, keeps) -> None:
    model = make_layer(GROUPED)
    keeps(split_groups, model)
    pieces = binary_convs(model)
    assert {source_layer(piece.node) for piece in pieces} == {"layer"}
    places = [sign_places(model, piece).reshape(-1).tolist() for piece in pieces]
    assert [place for piece in places for place in piece] == list(range(6 * 25))


def test_a_layer_of_one_group_and_a_float_layer_stay(make_layer) -> None:
    plain = make_layer(Geometry((5, 5), (3, 3)))
    before = operators(plain)
    split_groups(plain)
    assert operators(plain) == before
    grouped = make_layer(GROUPED, is_binary=False)
    split_groups(grouped)
    assert operators(grouped) == ["Neg", "Conv"]
