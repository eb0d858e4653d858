import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from bibench_deploy.errors import ParityError
from bibench_deploy.export.reference import Reference, answer, observe_module, observe_program
from bibench_deploy.export.to_onnx import export_onnx
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.load import load_graph
from bibench_deploy.verify.parity import compare
from bibench_train.harden import harden

INPUTS = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)


def test_outputs_are_the_modules_own(make_network) -> None:
    module = harden(make_network())
    with torch.no_grad():
        expected = module(torch.from_numpy(INPUTS)).numpy()
    np.testing.assert_allclose(observe_module(module, INPUTS).outputs, expected, atol=1e-6)


def test_the_signs_are_those_that_each_layer_reads_its_shift_included(make_network) -> None:
    module = harden(make_network("reactnet"))
    observed = observe_module(module, INPUTS)
    assert [signs.shape for signs in observed.signs] == [
        (4, 8, 8, 8), (4, 16, 4, 4), (4, 8, 8, 8), (4, 16),
    ]  # fmt: skip
    with torch.no_grad():
        first = module.stem(torch.from_numpy(INPUTS)) + module.block.conv1.shift
    np.testing.assert_array_equal(observed.signs[0], np.where(first.numpy() >= 0, 1, -1))
    assert (module.block.conv1.shift != 0).any()


def test_exactly_zero_counts_as_plus_one(make_network) -> None:
    module = harden(make_network("bnn")).hidden
    observed = observe_module(module, np.zeros((1, 16), np.float32))
    assert set(observed.signs[0].ravel()) == {1}


def test_a_module_without_binary_layers_shows_no_signs() -> None:
    assert observe_module(nn.ReLU(), INPUTS).signs == ()


def test_no_hook_is_left_behind(make_network) -> None:
    module = harden(make_network())
    observe_module(module, INPUTS)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_a_module_that_writes_to_its_input_does_not_change_the_inputs_of_others() -> None:
    before = INPUTS.copy()
    assert (observe_module(nn.ReLU(inplace=True), INPUTS).outputs >= 0).all()
    np.testing.assert_array_equal(INPUTS, before)


def test_answers_are_the_largest_outputs_of_any_number_of_images() -> None:
    images = np.random.default_rng(1).standard_normal((131, 5)).astype(np.float32)
    answers = answer(nn.Identity(), images)
    assert answers.dtype == np.int64
    np.testing.assert_array_equal(answers, images.argmax(axis=1))


# Modules that know nothing of bibench.


class SignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sign(x)


def by_where(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


def to_zero_and_one(x: torch.Tensor) -> torch.Tensor:
    return (x > 0.25).float()


def falling(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, 1.0, -1.0)


class Foreign(nn.Module):
    """Two binary layers, the second of stride 2, and their batch norms."""

    def __init__(self, binarize=by_where) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.binarize = binarize
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(16), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 5)
        # Kept in the program, not in its state: constants have names of their own.
        self.register_buffer("gain", torch.ones(1), persistent=False)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.running_mean, std=2)
            nn.init.uniform_(norm.running_var, 4, 40)
            nn.init.normal_(norm.bias, std=0.3)

    def binary(self, layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        scale = layer.weight.abs().mean((1, 2, 3), keepdim=True)
        weight = by_where(layer.weight) * scale
        return functional.conv2d(self.binarize(x), weight, None, layer.stride, layer.padding)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x) * self.gain
        x = self.norm1(self.binary(self.first, x)) + x
        return self.norm2(self.binary(self.second, x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def exported(module: nn.Module, path) -> Reference:
    module.eval()
    return Reference(module, export_onnx(module, torch.zeros(1, 3, 8, 8), path))


@pytest.mark.parametrize("binarize", [by_where, SignFunction.apply, to_zero_and_one, falling])
def test_a_foreign_module_shows_every_sign_that_it_takes(binarize, tmp_path) -> None:
    module = Foreign(binarize)
    reference = exported(module, tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    observed = reference.observe(graph, INPUTS)
    with torch.no_grad():
        x = torch.from_numpy(INPUTS)
        first = module.stem(x)
        second = module.norm1(module.binary(module.first, first)) + first
        outputs = module(x).numpy()
    threshold = 0.25 if binarize is to_zero_and_one else 0
    for signs, numbers in zip(observed.signs, (first, second), strict=True):
        # One image at a time may round otherwise than four at once.
        is_clear = np.abs(numbers.numpy() - threshold) > 1e-4
        expected = np.where(numbers.numpy() > threshold, 1, -1)
        np.testing.assert_array_equal(signs[is_clear], expected[is_clear])
        assert is_clear.mean() > 0.99
    np.testing.assert_allclose(observed.outputs, outputs, atol=1e-4)
    seen = compare(graph, INPUTS, observed, "PyTorch")
    assert seen.flip_rate is not None
    assert seen.unexplained_flips == 0


def test_the_numbers_before_a_sign_serve_where_the_sign_has_no_node(tmp_path) -> None:
    reference = exported(Foreign(), tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    expected = reference.observe(graph, INPUTS)
    for conv in binary_convs(graph):
        conv.binarization.result.name = f"unknown_to_torch_{conv.facts.name}"
    observed = reference.observe(graph, INPUTS)
    for signs, same in zip(observed.signs, expected.signs, strict=True):
        np.testing.assert_array_equal(signs, same)


def test_signs_stay_hidden_where_the_trace_has_other_names(tmp_path) -> None:
    reference = exported(Foreign(), tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    for conv in binary_convs(graph):
        conv.binarization.result.name = f"result_{conv.facts.name}"
        conv.binarization.source.name = f"source_{conv.facts.name}"
    assert observe_program(reference.program, binary_convs(graph), INPUTS) is None
    observed = reference.observe(graph, INPUTS)
    assert observed.signs is None
    np.testing.assert_array_equal(observed.outputs, observe_module(reference.model, INPUTS).outputs)


def with_one_wrong(path, change) -> None:
    """Change the weights of the binary layers in a file: change(name, array)."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if change(tensor.name, array):
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, path)


def flip_one_weight_of_each_channel(name, array) -> bool:
    if "first" in name:
        array[:, 0, 1, 1] *= -1
    return "first" in name


def shift_the_stem(name, array) -> bool:
    if name == "stem.bias":
        array += 1e-3
    return name == "stem.bias"


@pytest.mark.parametrize("change", [flip_one_weight_of_each_channel, shift_the_stem])
def test_a_file_that_differs_in_a_detail_fails_by_the_layer_that_does(change, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    reference = exported(Foreign(), path)
    before = path.read_bytes()
    with_one_wrong(path, change)
    assert path.read_bytes() != before
    graph = load_graph(path)
    with pytest.raises(ParityError, match=r"PyTorch takes .* signs otherwise than"):
        compare(graph, INPUTS, reference.observe(graph, INPUTS), "PyTorch")


class OtherWhenTraced(Foreign):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x * 1.01 if torch.compiler.is_exporting() else x


class OtherForOneInput(Foreign):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        changed = torch.where(x.amax((0, 1, 2, 3)) >= float(INPUTS.max()), y * 1.01, y)
        return changed if torch.compiler.is_exporting() else y


@pytest.mark.parametrize("kind", [OtherWhenTraced, OtherForOneInput])
def test_a_trace_of_something_else_than_the_module_is_no_proof(kind, tmp_path) -> None:
    reference = exported(kind(), tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    with pytest.raises(ParityError, match=r"differs from what torch\.export traced of it by"):
        reference.observe(graph, INPUTS)
