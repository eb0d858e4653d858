import io
import logging
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bibench_deploy.errors import MissingExtraError, SourceError
from bibench_deploy.export.to_onnx import export_onnx
from bibench_deploy.graph.load import load_graph

X = torch.zeros(1, 3, 4, 4)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.conv(x))


def test_the_file_computes_what_the_module_computes(tmp_path, run_graph) -> None:
    torch.manual_seed(0)
    module = Plain().train()
    export_onnx(module, X, tmp_path / "m.onnx")
    assert module.training
    x = torch.randn(1, 3, 4, 4)
    expected = module.eval()(x).detach().numpy()
    found = run_graph(onnx.load(tmp_path / "m.onnx"), x.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_small_numbers_are_not_rewritten_by_an_optimiser(tmp_path, run_graph) -> None:
    class Tiny(nn.Module):
        def forward(self, x):
            return torch.sign(x + 1e-20) * 1.000001

    export_onnx(Tiny(), X, tmp_path / "m.onnx")
    found = run_graph(onnx.load(tmp_path / "m.onnx"), np.zeros((1, 3, 4, 4), np.float32))
    assert set(found.ravel()) == {np.float32(1.000001)}


def test_batch_norm_stays_apart_from_the_convolution(tmp_path) -> None:
    export_onnx(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), X, tmp_path / "m.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert operators.count("BatchNormalization") == 1


def test_inputs_and_outputs_have_plain_names(tmp_path) -> None:
    export_onnx(Plain(), X, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert ([value.name for value in graph.input], [value.name for value in graph.output]) == (
        ["input"], ["output"],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["mean", "output", "input", "conv2d", "val_0"])
def test_a_weight_may_be_called_as_a_value_that_is_computed(name, tmp_path, run_graph) -> None:
    class Named(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)  # traced as a node called mean
            self.register_buffer(name, torch.rand(1, 3, 1, 1))

        def forward(self, x):
            return self.pool(super().forward(x - getattr(self, name))).flatten(1)

    torch.manual_seed(0)
    module, x = Named().eval(), torch.randn(1, 3, 4, 4)
    program = export_onnx(module, X, tmp_path / "m.onnx")
    load_graph(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    np.testing.assert_allclose(run_graph(proto, x.numpy()), module(x).detach(), atol=1e-6)
    traced = {node.name for node in program.graph_module.graph.nodes}
    computed = {value for node in proto.graph.node for value in node.output}
    assert {"mean", "conv2d"} <= traced & computed


def test_a_large_weight_stays_inside_the_file(tmp_path) -> None:
    export_onnx(nn.Linear(400, 900), torch.zeros(1, 400), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").stat().st_size > 4 * 400 * 900


def test_nothing_is_printed_logged_or_warned(tmp_path, capfd, caplog) -> None:
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        export_onnx(Plain(), X, tmp_path / "m.onnx")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [str(item.message) for item in caught] == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("first line\nsecond"), "ValueError: first line"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_module_that_fails_is_named_in_one_line(error, words, tmp_path) -> None:
    class Broken(nn.Module):
        def forward(self, x):
            raise error

    module = Broken().train()
    with pytest.raises(SourceError) as raised:
        export_onnx(module, X, tmp_path / "m.onnx")
    assert str(raised.value) == f"Broken cannot be exported: {words}"
    assert module.training
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "kind"), [((X, X), "tuple"), ({"y": X}, "dict"), (None, "None")]
)
def test_a_module_that_gives_no_single_tensor_is_refused(output, kind, tmp_path) -> None:
    class Several(nn.Module):
        def forward(self, x):
            return output

    with pytest.raises(
        SourceError, match=rf"Several gives a {kind}\w*; export a module that gives"
    ):
        export_onnx(Several(), X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torch.fft.fft, "gives complex64 numbers; .* magnitudes in place of complex numbers"),
        (lambda x: x.argmax(1), "gives int64 numbers; .* scores in place of classes"),
        (lambda x: x.double(), "gives float64 numbers; export a module that gives float32"),
    ],
)
def test_a_module_that_gives_other_numbers_than_float32_is_refused(change, words, tmp_path) -> None:
    class Changed(Plain):
        def forward(self, x):
            return change(super().forward(x))

    with pytest.raises(SourceError, match=f"^Changed {words}"):
        export_onnx(Changed(), X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_type_are_named_with_the_way_out(dtype, tmp_path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).to(dtype))
    with pytest.raises(SourceError) as raised:
        export_onnx(module, X, tmp_path / "m.onnx")
    name = str(dtype).removeprefix("torch.")
    assert str(raised.value) == (
        f"Sequential has weights in {name} (1.weight); convert it by .float() first"
    )


def test_a_branch_on_the_inputs_numbers_is_refused_with_the_way_out(tmp_path, monkeypatch) -> None:
    class Branches(Plain):
        def forward(self, x):
            y = super().forward(x)
            return y if y.sum() > 0 else -y

    printed, logger = io.StringIO(), logging.getLogger("torch")
    monkeypatch.setattr(sys, "stderr", printed)
    handler = logging.StreamHandler(printed)
    for quiet in (logger, logging.getLogger("torch.fx.experimental.symbolic_shapes")):
        monkeypatch.setattr(quiet, "handlers", [handler])
    level = logger.level
    with pytest.raises(SourceError) as raised:
        export_onnx(Branches(), X, tmp_path / "m.onnx")
    assert (printed.getvalue(), logger.level) == ("", level)
    assert str(raised.value) == (
        "Branches cannot be exported: its forward takes a branch that depends on the input's "
        "numbers; compute both sides and choose by torch.where"
    )


def test_a_module_that_binarizes_its_weight_in_place_is_refused(tmp_path) -> None:
    class InPlace(Plain):
        def forward(self, x):
            self.conv.weight.data = torch.where(self.conv.weight.data >= 0, 1.0, -1.0)
            return super().forward(x)

    with pytest.raises(SourceError, match=r"InPlace changes its own weight conv\.weight .*where"):
        export_onnx(InPlace(), X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as raised:
        export_onnx(Plain(), X, tmp_path / "m.onnx")
    assert (raised.value.package, raised.value.extra) == (package, "train")


def test_layers_are_named_by_their_modules(tmp_path) -> None:
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
            self.shared = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return torch.tanh(self.shared(self.shared(self.stem(x))))

    export_onnx(Twice(), torch.zeros(1, 3, 5, 5), tmp_path / "m.onnx")
    nodes = load_graph(tmp_path / "m.onnx").graph
    names = [node.name for node in nodes if node.op_type in ("Conv", "BatchNormalization")]
    assert names == ["stem.0", "stem.1", "shared", "shared_1"]
