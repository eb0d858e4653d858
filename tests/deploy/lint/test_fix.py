from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bibench_deploy.errors import ParityError, SourceError
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lint import fix
from bibench_deploy.lint.fix import fix_file

RNG = np.random.default_rng(2)
SIGNS = np.where(RNG.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
ALPHA = np.linspace(0.5, 2, 8).reshape(8, 1, 1, 1)
ARRAYS = {
    "w": SIGNS, "scaled": SIGNS * ALPHA, "zero": 0.0, "one": 1.0, "minus": -1.0,
    "back": RNG.standard_normal((4, 8, 1, 1)),
}  # fmt: skip
GOOD = "g = GreaterOrEqual({}, zero)  s = Where(g, one, minus)"
ABOVE = "g = Greater(h, zero)  s = Where(g, one, minus)"
CASES = {
    "x > 0": ("g = Greater(x, zero)  s = Where(g, one, minus)  y = Conv(s, w)", (1, 0, 0)),
    "a scale in the weights": (f"{GOOD.format('x')}  y = Conv(s, scaled)", (0, 1, 0)),
    "a clip before the sign": (
        f"h = Clip(x, minus, one)  {GOOD.format('h')}  y = Conv(s, w)", (0, 0, 1)),
    "all of them": (f"h = Clip(x, minus, one)  {ABOVE}  y = Conv(s, scaled)", (1, 1, 1)),
}  # fmt: skip
NOTHING = {
    "the form that it would be": f"{GOOD.format('x')}  y = Conv(s, w)",
    "a clip that something else reads": (
        f"h = Clip(x, minus, one)  {GOOD.format('h')}  c = Conv<pads=[1,1,1,1]>(s, w)"
        "  d = Conv(c, back)  y = Add(d, h)"),
    "a sign that makes 0 of 0": "s = Sign(x)  y = Conv(s, scaled)",
}  # fmt: skip


@pytest.fixture
def saved(make_proto, tmp_path):
    def save(nodes: str):
        path = tmp_path / "model.onnx"
        onnx.save(make_proto(f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}", **ARRAYS), path)
        return path

    return save


@pytest.mark.parametrize("case", CASES)
def test_what_is_exact_is_rewritten_into_a_new_file(case, saved, tmp_path, run_graph) -> None:
    nodes, counts = CASES[case]
    path, out = saved(nodes), tmp_path / "fixed.onnx"
    before = path.read_bytes()
    done = fix_file(path, out)
    assert (done.signs, done.scales, done.clips) == counts
    assert done.parity is not None
    assert path.read_bytes() == before
    assert {item.name for item in tmp_path.iterdir()} == {"model.onnx", "fixed.onnx"}
    onnx.checker.check_model(str(out), full_check=True)
    x = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)
    x[0, 0, 0, :4] = [0, -0.0, 1, -1]
    old, new = run_graph(onnx.load(path), x), run_graph(onnx.load(out), x)
    np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_fixed_file_has_the_plain_form_and_nothing_more_to_fix(case, saved, tmp_path) -> None:
    fix_file(saved(CASES[case][0]), tmp_path / "fixed.onnx")
    (conv,) = binary_convs(load_graph(tmp_path / "fixed.onnx"))
    assert (conv.magnitude == 1).all()
    again = fix_file(tmp_path / "fixed.onnx", tmp_path / "again.onnx")
    assert again.scales == again.clips == 0


@pytest.mark.parametrize("case", NOTHING)
def test_where_nothing_is_exact_nothing_is_written(case, saved, tmp_path) -> None:
    done = fix_file(saved(NOTHING[case]), tmp_path / "fixed.onnx")
    assert (done.signs, done.scales, done.clips, done.parity) == (0, 0, 0, None)
    assert not (tmp_path / "fixed.onnx").exists()


def test_a_file_that_is_there_is_not_written_over(saved, tmp_path) -> None:
    path = saved(CASES["x > 0"][0])
    with pytest.raises(SourceError, match="is there already; name a new file"):
        fix_file(path, path)
    with pytest.raises(SourceError, match=r"fixed\.txt: no name of an ONNX file"):
        fix_file(path, tmp_path / "fixed.txt")
    with pytest.raises(SourceError, match="no such folder"):
        fix_file(path, tmp_path / "absent" / "fixed.onnx")
    with pytest.raises(SourceError, match="nothing can be made there"):
        fix_file(path, Path("/proc/fixed.onnx"))


def test_a_file_that_computes_something_else_is_not_left_behind(
    saved, tmp_path, monkeypatch
) -> None:
    def spoil(model) -> None:
        for conv in binary_convs(model):
            weight = conv.node.inputs[1].const_value.numpy()
            weight[0, 0] *= -1

    monkeypatch.setattr(fix, "drop_clip_before_sign", spoil)
    with pytest.raises(ParityError, match="the fixed file differs from the ONNX graph"):
        fix_file(saved(CASES["a scale in the weights"][0]), tmp_path / "fixed.onnx")
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


TWO_LAYERS = (
    f"{GOOD.format('x')}  h = Conv(s, w)  p = Greater(h, zero)  t = Where(p, one, minus)"
    "  y = Conv(t, deep)"
)
DEEP = np.where(RNG.standard_normal((8, 8, 3, 3)) >= 0, 1.0, -1.0)


def test_numbers_on_a_threshold_excuse_no_other_error(make_proto, tmp_path, monkeypatch) -> None:
    # Sums of 36 signs often are 0, where rounding alone may decide: it explains no wrong weight.
    def spoil(model) -> None:
        value = binary_convs(model)[-1].node.inputs[1]
        weight = value.const_value.numpy().copy()
        weight[0, 0] *= -1
        value.const_value = ir.tensor(weight, name=value.name)

    path = tmp_path / "model.onnx"
    text = f"g (float[1,4,8,8] x) => (y) {{ {TWO_LAYERS} }}"
    onnx.save(make_proto(text, **ARRAYS, deep=DEEP), path)
    done = fix_file(path, tmp_path / "fixed.onnx")
    assert done.parity is not None
    assert (done.parity.max_abs_error_same_signs, done.parity.flip_rate) == (0, 0)
    monkeypatch.setattr(fix, "drop_clip_before_sign", spoil)
    with pytest.raises(ParityError, match="differs from the ONNX graph"):
        fix_file(path, tmp_path / "spoiled.onnx")
    assert {item.name for item in tmp_path.iterdir()} == {"model.onnx", "fixed.onnx"}


def test_signs_that_rounding_decides_are_counted(make_proto, tmp_path) -> None:
    # Of weights of ±a, a sum that should be 0 is what rounding leaves; of ±1, it is 0.
    path = tmp_path / "model.onnx"
    text = f"g (float[1,4,8,8] x) => (y) {{ {TWO_LAYERS.replace('(s, w)', '(s, scaled)')} }}"
    onnx.save(make_proto(text, **{**ARRAYS, "scaled": SIGNS * ALPHA * 0.3}, deep=DEEP), path)
    parity = fix_file(path, tmp_path / "fixed.onnx").parity
    assert parity is not None
    assert parity.max_abs_error_same_signs == 0
    first, second = parity.layers
    assert first.flips == 0
    assert 0 < second.flips < second.signs / 5


MOVED = {
    "padded by −1": "q = Pad(s, amounts, minus)  y = Conv(q, w)",
    "flattened": "f = Flatten(s)  y = MatMul(f, rows)",
    "transposed": "r = Transpose<perm=[0,1,3,2]>(s)  y = Conv(r, w)",
}


@pytest.mark.parametrize("case", MOVED)
def test_signs_that_are_moved_or_padded_are_compared_in_their_places(
    case, make_proto, tmp_path
) -> None:
    nodes = f"g = Greater(x, zero)  s = Where(g, one, minus)  {MOVED[case]}"
    rows = np.where(RNG.standard_normal((256, 5)) >= 0, 1.0, -1.0)
    proto = make_proto(
        f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}",
        **ARRAYS, rows=rows, amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    )  # fmt: skip
    onnx.save(proto, tmp_path / "model.onnx")
    done = fix_file(tmp_path / "model.onnx", tmp_path / "fixed.onnx")
    assert done.signs == 1
    assert done.parity is not None
    (layer,) = done.parity.layers
    assert (layer.signs, layer.flips) == (8 * 4 * 8 * 8, 0)
