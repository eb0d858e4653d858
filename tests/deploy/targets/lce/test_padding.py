import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bibench_deploy.graph.facts import binary_convs, window_of
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.targets.lce.padding import ORIENTATION, fit_padding, plan_padding

CONV = "{} = Conv<pads=[{}], strides=[{}], dilations=[{}]>({}, {}_w)"


def slide(x, kernel, strides, dilations):
    """The sums of a window over a map that is padded already, [H, W] → [H', W']."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach)
    windows = windows[:: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return np.einsum("hwij,ij->hw", windows, kernel)


def tensorflow_same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """SAME, as TensorFlow's guide defines it."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def by_plan(x, kernel, node, plan):
    """What TensorFlow computes for a node by the plan, turned back."""
    window, layer = window_of(node), plan.layers[node]
    if plan.is_rotated:
        x, kernel = x[::-1, ::-1], kernel[::-1, ::-1]
    rows, columns = layer.cut(window)
    x = x[rows.start :, columns.start :]
    if layer.mode == "same":
        amounts = [
            tensorflow_same(x.shape[axis], kernel.shape[axis], window.strides[axis],
                            window.dilations[axis])
            for axis in (0, 1)
        ]  # fmt: skip
    else:
        amounts = [[max(side, 0) for side in pair] for pair in layer.amounts]
        if layer.mode == "valid":
            assert amounts == [[0, 0], [0, 0]]
    result = slide(np.pad(x, amounts), kernel, window.strides, window.dilations)
    return result[::-1, ::-1] if plan.is_rotated else result


@st.composite
def layers(draw):
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    return {
        "kernel": kernel,
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "dilations": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        # PyTorch pads alike on both sides; ONNX files of others need not.
        "pads": draw(
            st.tuples(*[st.integers(0, side) for side in kernel]).map(lambda pair: pair * 2)
            | st.tuples(*[st.integers(0, side) for side in kernel * 2])
        ),
    }


@settings(max_examples=150, deadline=None)
@given(one=layers(), other=layers(), size=st.tuples(st.integers(1, 13), st.integers(1, 13)))
def test_padding_by_plan_equals_pytorchs_padding(make_graph, one, other, size) -> None:
    nodes, arrays = [], {}
    generator = np.random.default_rng(0)
    for name, layer in (("a", one), ("b", other)):
        for axis in (0, 1):
            padded = size[axis] + layer["pads"][axis] + layer["pads"][axis + 2]
            assume((layer["kernel"][axis] - 1) * layer["dilations"][axis] + 1 <= padded)
        arrays[f"{name}_w"] = generator.integers(-9, 10, (1, 1, *layer["kernel"])).astype(float)
        numbers = (",".join(map(str, layer[key])) for key in ("pads", "strides", "dilations"))
        nodes.append(CONV.format(name, *numbers, "x", name))
    model = make_graph(
        f"g (float[1,1,{size[0]},{size[1]}] x) => (a, b) {{ {'  '.join(nodes)} }}", **arrays
    )
    x = generator.integers(-9, 10, size).astype(float)
    plan = plan_padding(model)
    for node, layer in zip(model.graph, (one, other), strict=True):
        kernel = arrays[f"{node.name}_w"][0, 0]
        top, left, bottom, right = layer["pads"]
        padded = np.pad(x, [(top, bottom), (left, right)])
        expected = slide(padded, kernel, layer["strides"], layer["dilations"])
        np.testing.assert_array_equal(by_plan(x, kernel, node, plan), expected)


def graph_of(make_graph, nodes: str, size: str = "8,8", **arrays):
    signs = np.where(np.random.default_rng(0).standard_normal((4, 4, 7, 7)) >= 0, 1.0, -1.0)
    return make_graph(
        f"g (float[1,4,{size}] x) => (y) {{ {nodes} }}",
        w1=signs[..., :1, :1],
        w3=signs[..., :3, :3],
        w5=signs[..., :5, :5],
        w7=signs,
        **arrays,
    )


def plan_of(make_graph, nodes: str, size: str = "8,8"):
    plan = plan_padding(graph_of(make_graph, nodes, size))
    return plan.is_rotated, {node.name: layer.mode for node, layer in plan.layers.items()}


def test_stride_2_on_an_even_map_is_same_in_the_rotated_network(make_graph) -> None:
    nodes = "s = Sign(x)  y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)"
    assert plan_of(make_graph, nodes) == (True, {"y": "same"})


def test_stride_2_on_an_odd_map_needs_no_rotation(make_graph) -> None:
    nodes = "s = Sign(x)  y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)"
    assert plan_of(make_graph, nodes, "9,9") == (False, {"y": "same"})


def test_a_plain_network_is_not_rotated(make_graph) -> None:
    nodes = """s = Sign(x)  c = Conv<pads=[1,1,1,1]>(s, w3)
        y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)"""
    assert plan_of(make_graph, nodes) == (False, {"c": "same", "y": "same"})


def test_the_stem_pool_and_shortcut_of_a_resnet_fit_together(make_graph) -> None:
    nodes = """c = Conv<pads=[3,3,3,3], strides=[2,2]>(x, w7)
        m = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c)
        s = Sign(m)  a = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)
        b = Conv<strides=[2,2]>(m, w1)  y = Add(a, b)"""
    is_rotated, modes = plan_of(make_graph, nodes, "32,32")
    assert is_rotated
    assert modes == {"c": "same", "m": "same", "a": "same", "b": "valid"}


def test_a_float_layer_is_padded_explicitly_for_a_binary_one_that_would_be_doubled(
    make_graph,
) -> None:
    nodes = """f = Conv<pads=[1,1,0,0], strides=[2,2]>(x, w3)
        s = Sign(x)  b = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)
        g = GlobalAveragePool(f)  h = GlobalAveragePool(b)  y = Add(g, h)"""
    _, modes = plan_of(make_graph, nodes)
    assert modes["b"] == "same"


def test_the_twin_with_a_float_layer_is_padded_explicitly(make_graph) -> None:
    assert plan_of(make_graph, "y = Conv<pads=[1,1,1,1]>(x, w5)") == (False, {"y": "explicit"})


def test_of_two_orientations_that_one_is_chosen_that_doubles_less_work(make_graph) -> None:
    # The first layer is SAME upright, the second turned; the second multiplies more.
    nodes = """s = Sign(x)  [small] a = Conv<pads=[0,0,1,1], strides=[2,2]>(s, w3)
        [large] b = Conv<pads=[2,2,1,1], strides=[2,2]>(s, w5)
        g = GlobalAveragePool(a)  h = GlobalAveragePool(b)  y = Add(g, h)"""
    model = graph_of(make_graph, nodes)
    plan = plan_padding(model)
    assert plan.is_rotated
    assert {node.name for node in plan.to_double} == {"small"}


@pytest.mark.parametrize(
    ("layer", "size", "expected"),
    [
        ("Conv<pads=[1,1,1,1]>(s, w3)", 8, "held"),
        ("Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3)", 8, "held"),
        ("Conv(s, w5)", 8, "held"),
        ("Conv<pads=[1,1,1,1]>(s, w5)", 8, (2, 2, 2, 2)),
        ("Conv<pads=[0,1,1,1]>(s, w3)", 8, (1, 1, 1, 1)),
        # Stride 2 reads the same places where it begins a whole stride before.
        ("Conv<pads=[1,1,1,1], strides=[2,2]>(s, w7)", 13, (3, 3, 3, 3)),
        ("Conv<pads=[2,2,2,2]>(s, w3)", 8, "doubled"),
        # More than half of what SAME computes would be cut off.
        ("Conv<pads=[1,1,1,1]>(s, w7)", 7, "doubled"),
        # A map smaller than the kernel's reach.
        ("Conv<pads=[1,1,1,1]>(s, w3)", 2, "doubled"),
        ("Conv<pads=[2,2,2,2], dilations=[2,2]>(s, w3)", 4, "doubled"),
        ("Conv<pads=[2,2,2,2], dilations=[2,2]>(s, w3)", 5, "held"),
    ],
)
def test_zeros_that_lce_cannot_hold_are_a_part_of_same_or_doubled(
    layer, size, expected, make_graph
) -> None:
    plan = plan_padding(graph_of(make_graph, f"s = Sign(x)  y = {layer}", f"{size},{size}"))
    wider = list(plan.to_widen.values())
    assert wider == ([expected] if isinstance(expected, tuple) else [])
    assert bool(plan.to_double) is (expected == "doubled")


def test_after_fitting_every_binary_layer_is_same_or_valid(make_graph) -> None:
    nodes = """s = Sign(x)  a = Conv<pads=[1,1,1,1]>(s, w5)
        t = Sign(a)  b = Conv<pads=[1,1,1,1], strides=[2,2]>(t, w3)
        u = Sign(b)  y = Conv<pads=[1,1,1,1]>(u, w3)"""
    model = graph_of(make_graph, nodes, "4,4")
    canonical_binarization(model)
    fit_padding(model)
    plan = plan_padding(model)
    assert plan.to_double == frozenset()
    assert {layer.mode for layer in plan.layers.values()} <= {"same", "valid"}
    # Maps of 4×4, then 2×2, of which the stride reads all at once, then 1×1.
    shapes = [conv.facts.weight_shape for conv in binary_convs(model)]
    assert shapes == [(4, 8, 5, 5), (4, 4, 2, 2), (4, 4, 1, 1)]


def test_a_settled_orientation_is_kept(make_graph) -> None:
    nodes = "s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w3)"
    model = graph_of(make_graph, nodes)
    model.metadata_props[ORIENTATION] = "turned"
    assert plan_padding(model).is_rotated
    canonical_binarization(model)
    fit_padding(model)
    assert model.metadata_props[ORIENTATION] == "turned"
    other = graph_of(make_graph, nodes)
    fit_padding(other)
    assert other.metadata_props[ORIENTATION] == "upright"


def padded_with(make_graph, filler: float):
    model = graph_of(
        make_graph,
        "s = Sign(x)  p = Pad(s, amounts, filler)  y = Conv<strides=[2,2]>(p, w3)",
        filler=filler,
        amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    )
    canonical_binarization(model)
    (conv,) = binary_convs(model)
    return plan_padding(model), conv


def test_padding_with_one_that_is_same_is_the_layers_own(make_graph) -> None:
    plan, conv = padded_with(make_graph, 1.0)
    layer = plan.layers[conv.node]
    assert (plan.is_rotated, layer.mode) == (True, "same")
    assert layer.pad is conv.binarization.source.producer()
    # Of 10×10 padded numbers it reads the 8×8 of the map.
    assert plan.read_part(conv.node) == (slice(1, 9), slice(1, 9))


def test_padding_with_minus_one_stays_before_the_sign(make_graph) -> None:
    plan, conv = padded_with(make_graph, -1.0)
    layer = plan.layers[conv.node]
    assert (layer.mode, layer.pad, plan.to_double) == ("valid", None, frozenset())
