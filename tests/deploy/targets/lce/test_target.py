"""Facts of the real engine that the target rests on, and what the writer tells of its files."""

import numpy as np
import pytest

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.lce import TARGET, target
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.run_model import RuntimeMissingError, load_interpreter

RNG = np.random.default_rng(17)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, np.float32(1), np.float32(-1))
FLOAT = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)


def test_the_files_and_their_facts_are_told(converted) -> None:
    written = converted.written
    assert {role: path.name for role, path in written.files.items()} == {
        "model": "model.tflite",
        "keras": "model.keras",
    }
    assert written.input == {
        "name": "x", "shape": [1, 8, 8, 4], "layout": "NHWC", "dtype": "float32",
        "rotated": False,
    }  # fmt: skip
    assert sorted(path.name for path in converted.path.parent.iterdir()) == [
        "model.keras", "model.tflite",
    ]  # fmt: skip


def test_each_layer_is_listed_with_its_shape_and_operator(converted) -> None:
    assert [
        (layer["name"], layer["weight_shape"], layer["kernel"])
        for layer in converted.written.layers
    ] == [
        ("first", [8, 4, 3, 3], "LceBconv2d"),
        ("second", [40, 8, 3, 3], "LceBconv2d"),
        ("third", [3, 40], "LceBconv2d"),
    ]


@pytest.mark.parametrize(("size", "is_rotated"), [(8, True), (7, False)])
def test_a_rotated_input_is_left_to_the_caller_where_the_network_is_rotated(
    size, is_rotated, make_graph, lce_writer, run_graph, tmp_path
) -> None:
    graph = make_graph(
        f"g (float[1,4,{size},{size}] x) => (y)"
        " { s = Sign(x)  y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w) }",
        w=SIGNS,
    )
    lowered = TARGET.lower(graph)
    written = lce_writer.write(lowered, tmp_path, WriteOptions(input="rotated"))
    assert written.input["rotated"] is is_rotated
    names = [node.name for node in read_tflite(written.files["model"]).operators]
    # The one that is left turns the output, a map, back.
    assert names.count("REVERSE_V2") == is_rotated
    x = RNG.standard_normal((2, 4, size, size)).astype(np.float32)
    expected = np.concatenate([run_graph(graph, row[None]) for row in x])
    seen = written.execute(x)
    np.testing.assert_array_equal(seen.outputs, expected)
    np.testing.assert_array_equal(
        seen.signs[binary_convs(graph)[0].facts.name], np.where(x >= 0, 1, -1).reshape(2, -1)
    )
    interpreter = load_interpreter(written.files["model"].read_bytes())
    image = x[0].transpose(1, 2, 0)
    turned = image[::-1, ::-1] if is_rotated else image
    (by_hand,) = interpreter.predict([np.ascontiguousarray(turned[None])])
    np.testing.assert_array_equal(by_hand.transpose(0, 3, 1, 2), expected[:1])


def test_running_gives_the_signs_of_each_layer_in_pytorchs_layout(converted, run_graph) -> None:
    x = RNG.standard_normal((3, 4, 8, 8)).astype(np.float32)
    seen = converted.written.execute(x)
    convs = binary_convs(converted.lowered)
    assert {name: signs.shape for name, signs in seen.signs.items()} == {
        conv.facts.name: (3, np.prod(conv.facts.input_shape)) for conv in convs
    }
    np.testing.assert_array_equal(seen.signs["first"], np.where(x >= 0, 1, -1).reshape(3, -1))
    expected = np.concatenate([run_graph(converted.lowered, row[None]) for row in x])
    np.testing.assert_allclose(seen.outputs, expected, rtol=1e-5, atol=1e-5)


def test_signs_are_left_out_where_nobody_wants_them(converted) -> None:
    x = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)
    plain = converted.written.execute(x, wants_signs=False)
    assert plain.signs == {}
    np.testing.assert_array_equal(plain.outputs, converted.written.execute(x).outputs)


def test_a_missing_runtime_is_named_with_the_command_that_adds_it(converted, monkeypatch) -> None:
    def absent(*_, **__):
        raise RuntimeMissingError("not installed")

    monkeypatch.setattr(target, "load_interpreter", absent)
    with pytest.raises(MissingExtraError, match=r"running a model needs .*\[profile\]"):
        converted.written.execute(np.zeros((1, 4, 8, 8), np.float32))


def test_the_engine_turns_zero_into_plus_one(make_graph, write_lce) -> None:
    graph = make_graph(
        "g (float[1,4,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=np.ones((8, 4, 3, 3))
    )
    written = write_lce(graph)
    tiny = np.float32(1e-38)
    for value, sign in ((0.0, 1), (-0.0, 1), (tiny, 1), (-tiny * 2, -1)):
        seen = written.execute(np.full((1, 4, 8, 8), value, np.float32))
        (signs,) = seen.signs.values()
        assert set(signs.ravel()) == {sign}
        assert set(seen.outputs.ravel()) == {36.0 * sign}


def test_the_lowered_graph_agrees_with_the_engine_about_zero(make_graph, run_graph) -> None:
    graph = make_graph(
        "g (float[1,4,8,8] x) => (y) { s = Sign(x)  y = Conv(s, w) }", w=np.ones((8, 4, 3, 3))
    )
    zeros = np.zeros((1, 4, 8, 8), np.float32)
    assert set(run_graph(TARGET.lower(graph), zeros).ravel()) == {36.0}
