"""Networks of this project, whole, to .dab files: written, read back, run, proved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from benchmarks.lce_parity import finished_network
from bibench_deploy import export_model
from bibench_deploy.artifact import Artifact
from bibench_deploy.cli.export import summary
from bibench_deploy.errors import ConversionError, LoweringError
from bibench_deploy.export.pipeline import export_source, write_onnx
from bibench_deploy.export.source import Source, from_module, resolve_source, with_test_set
from bibench_deploy.graph.load import load_graph
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.dabnn import TARGET, emitter
from bibench_deploy.targets.dabnn.flatbuffer import read_dab, to_bytes
from bibench_deploy.targets.dabnn.packing import pack_filters
from bibench_deploy.targets.dabnn.schema import Operator
from bibench_train import algorithms
from bibench_train.layers import BinaryLinear

ALGORITHMS = ("bnn", "dorefa", "bireal", "recu", "fda", "biper")


@pytest.fixture(scope="module")
def resnet20(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """resnet20(algorithm): ResNet-20 at 16 pixels as an .onnx file, traced once."""
    folder, made = tmp_path_factory.mktemp("networks"), {}

    def make(algorithm: str) -> Source:
        if algorithm not in made:
            path = folder / f"{algorithm}.onnx"
            model = finished_network(algorithm, "resnet20", 16)
            write_onnx(from_module(model, (1, 3, 16, 16), algorithm), path)
            made[algorithm] = resolve_source(str(path))
        return made[algorithm]

    return make


def export(source: Source, folder: Path, *, baseline: bool = False, **options: Any) -> Artifact:
    chosen = WriteOptions(**options)
    return export_source(source, target="dabnn", out=folder, baseline=baseline, options=chosen)


def export_module(model: torch.nn.Module, size: int, folder: Path, **options: Any) -> Artifact:
    chosen, image = WriteOptions(**options), torch.zeros(1, 3, size, size)
    return export_model(model, image, target="dabnn", out=folder, options=chosen)


def check(artifact: Artifact, layers: int) -> None:
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": layers, "resident": layers}
    parity = verification["parity"]
    steps = [parity[name] for name in ("torch_to_onnx", "onnx_to_target") if parity[name]]
    for step in steps:
        assert step["unexplained_flips"] == 0
        assert step["max_abs_error_same_signs"] < 1e-4


@pytest.mark.parametrize("padding", ["exact", "minus-one"])
def test_resnet20_is_exported_and_proved(padding, resnet20, tmp_path) -> None:
    artifact = export(resnet20("bnn"), tmp_path / "net", padding=padding)
    check(artifact, 18)
    content = artifact.model_path.read_bytes()
    model = read_dab(artifact.model_path)
    assert to_bytes(model) == content
    kinds = [layer.operator for layer in model.layers]
    assert kinds.count(Operator.BinConv2D) == 18
    assert kinds.count(Operator.FpConv2D) == 4  # stem, two shortcuts, head
    assert kinds.count(Operator.AvePool) == 1


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["exact", "minus-one"])
@pytest.mark.parametrize(("name", "layers"), [("resnet18", 16), ("resnet34", 32)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_named_network_is_proved(algorithm, name, layers, padding, tmp_path) -> None:
    model = finished_network(algorithm, name, 32)
    artifact = export_module(model, 32, tmp_path / "net", padding=padding)
    check(artifact, layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_named_network_is_held_at_224_pixels(algorithm, name, tmp_path) -> None:
    source = from_module(finished_network(algorithm, name, 224), (1, 3, 224, 224), name)
    write_onnx(source, tmp_path / "model.onnx")
    model = load_graph(tmp_path / "model.onnx")
    for padding in ("exact", "minus-one"):
        assert TARGET.refusals(model, WriteOptions(padding=padding)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layers"), [("resnet18", 16), ("resnet34", 32)])
def test_the_papers_pair_works_as_published(name, layers, tmp_path) -> None:
    model = finished_network("bnn", name, 224)
    artifact = export_module(model, 224, tmp_path / "net", padding="minus-one")
    check(artifact, layers)
    # Figures of the file are those of its own content, within the names and offsets.
    tensors = read_dab(artifact.model_path).tensors
    data = sum(tensor.data.nbytes for tensor in tensors)
    assert data < artifact.size_bytes < 1.01 * data


def test_reactnet_is_refused_for_its_mean_shift_unless_it_is_allowed(resnet20, tmp_path) -> None:
    with pytest.raises(LoweringError) as raised:
        export(resnet20("reactnet"), tmp_path / "net", padding="exact")
    assert len(raised.value.reasons) == 18
    assert all("BIB204" in reason for reason in raised.value.reasons)
    assert list(tmp_path.iterdir()) == []
    artifact = export(
        resnet20("reactnet"), tmp_path / "net", padding="exact", allow_mean_shift=True
    )
    check(artifact, 18)


PADS, SHIFTS = {"zero-padding"}, {"mean-shift"}
AT_RUN_TIME, BY_PLACE = {"activation-rescaling"}, {"scale-granularity"}


@pytest.mark.parametrize(
    ("algorithm", "refused", "exact", "shifted"),
    [
        # By default, with --padding exact or minus-one, and with --allow-mean-shift too.
        *((name, PADS, set(), set()) for name in ALGORITHMS),
        ("reactnet", PADS | SHIFTS, SHIFTS, set()),
        ("bnext", PADS | SHIFTS, SHIFTS, set()),
        ("xnor", AT_RUN_TIME, AT_RUN_TIME, AT_RUN_TIME),
        ("xnorpp", BY_PLACE, BY_PLACE, BY_PLACE),
    ],
)
def test_every_algorithm_is_refused_for_what_the_engine_has_not(
    algorithm, refused, exact, shifted, resnet20
) -> None:
    model = load_graph(resnet20(algorithm).onnx_path)

    def rules(**options: Any) -> set[str]:
        found = TARGET.refusals(model, WriteOptions(**options))
        # What a scale is computed from is refused node by node as well.
        return {refusal.rule for refusal in found} - {"unsupported-operator"}

    assert rules() == refused
    for padding in ("exact", "minus-one"):
        assert rules(padding=padding) == exact
        assert rules(padding=padding, allow_mean_shift=True) == shifted


def test_zero_padding_is_refused_by_default_with_both_options(resnet20, tmp_path) -> None:
    with pytest.raises(LoweringError) as raised:
        export(resnet20("bnn"), tmp_path / "net")
    assert len(raised.value.reasons) == 18
    assert "--padding exact" in str(raised.value)
    assert "--padding minus-one" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_twin_is_a_dab_file_too(resnet20, tmp_path) -> None:
    artifact = export(resnet20("bnn"), tmp_path / "net", baseline=True, padding="minus-one")
    twin = Artifact.load(artifact.directory / "fp32")
    assert twin.model_path.name == "model.dab"
    operators = {layer.operator for layer in read_dab(twin.model_path).layers}
    assert Operator.FpConv2D in operators
    assert Operator.BinConv2D not in operators
    assert twin.manifest["verification"]["padding"] is None
    assert twin.size_bytes > 8 * artifact.size_bytes


def test_the_twin_of_a_network_that_pads_with_minus_one_itself_is_written(
    make_graph, tmp_path
) -> None:
    signs = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) > 0, 1.0, -1.0)
    model = make_graph(
        """g (float[1,4,8,8] x) => (y) { b = Less(x, zero)  s = Where(b, minus, one)
            p = Pad(s, amounts, minus)  y = Conv(p, w) }""",
        w=signs, amounts=np.array([0, 0, 1, 1, 0, 0, 1, 1]), zero=0.0, minus=-1.0, one=1.0,
    )  # fmt: skip
    ir.save(model, tmp_path / "padded.onnx")
    artifact = export(
        resolve_source(str(tmp_path / "padded.onnx")), tmp_path / "net", baseline=True
    )
    check(artifact, 1)
    assert artifact.manifest["verification"]["padding"] is None
    twin = Artifact.load(artifact.directory / "fp32")
    operators = [layer.operator for layer in read_dab(twin.model_path).layers]
    assert operators == [Operator.FpConv2D, Operator.Add]


def test_minus_one_says_by_how_much_outputs_change(resnet20, tmp_path) -> None:
    artifact = export(resnet20("bnn"), tmp_path / "net", padding="minus-one")
    padding = artifact.manifest["verification"]["padding"]
    assert padding["mode"] == "minus-one"
    assert padding["cost"]["inputs"] == 8
    assert padding["cost"]["max_relative_error"] > 0.01


def test_what_the_file_holds_for_a_layer_is_its_own(resnet20, tmp_path) -> None:
    artifact = export(resnet20("bnn"), tmp_path / "net", padding="minus-one")
    model = read_dab(artifact.model_path)
    assert sum(layer["actual_bytes"] for layer in artifact.manifest["layers"]) <= sum(
        tensor.data.nbytes for tensor in model.tensors
    )
    first = next(item for item in artifact.manifest["layers"] if item["intended_bits"] == 1)
    # 16 filters of 144 signs: 3 words of 64 bits each, stored as 4; a and b of the Affine.
    assert (first["intended_bytes"], first["actual_bytes"]) == (16 * 24, 16 * 32 + 2 * 16 * 4)


def test_a_filter_that_is_not_the_layers_own_fails_the_export(
    resnet20, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flipped(weight, strides):
        changed = weight.copy()
        changed[0, 0, 0, 0] *= -1
        return pack_filters(changed, strides)

    monkeypatch.setattr(emitter, "pack_filters", flipped)
    with pytest.raises(ConversionError, match="18 binary layers are not in the file"):
        export(resnet20("bnn"), tmp_path / "net", padding="minus-one")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_rows_is_held(tmp_path) -> None:
    torch.manual_seed(0)
    bnn = algorithms.load("bnn")
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 32), torch.nn.BatchNorm1d(32), torch.nn.Hardtanh(),
        BinaryLinear(bnn, 32, 64, bias=False), torch.nn.BatchNorm1d(64), torch.nn.Hardtanh(),
        BinaryLinear(bnn, 64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5),
    ).eval()  # fmt: skip
    artifact = export_model(model, torch.zeros(1, 12), target="dabnn", out=tmp_path / "net")
    check(artifact, 2)
    assert artifact.manifest["input"]["shape"] == [1, 1, 1, 12]


def test_a_flattened_map_is_read_by_a_layer_of_its_size(tmp_path) -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.PReLU(8), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(8 * 4 * 4, 10),
    ).eval()  # fmt: skip
    artifact = export_module(model, 8, tmp_path / "net")
    parity = artifact.manifest["verification"]["parity"]["onnx_to_target"]
    assert parity["max_abs_error"] < 1e-5
    last = read_dab(artifact.model_path).layers[-1]
    assert last.operator is Operator.FpConv2D
    assert read_dab(artifact.model_path).layers[1].operator is Operator.PRelu


def test_images_are_answered_before_and_after_a_change(resnet20, tmp_path) -> None:
    generator = np.random.default_rng(0)
    images = generator.standard_normal((20, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", images=images, labels=generator.integers(0, 10, 20))
    source = with_test_set(resnet20("bnn"), tmp_path / "data.npz")
    artifact = export(source, tmp_path / "net", padding="minus-one")
    accuracy = artifact.manifest["verification"]["accuracy"]
    assert accuracy["images"] == 20
    assert {"onnx_correct", "target_correct", "same_answers"} <= accuracy.keys()
    assert "−1 in place of zeros" in summary(artifact)
    assert f"→ {accuracy['target_percent']:.2f} % on 20 images" in summary(artifact)


@pytest.mark.parametrize(
    ("clip", "layers"),
    [
        ("Clip(c, low, high)", ["Affine", "Relu", "Affine", "Relu", "Affine"]),
        ("Clip(c, low)", ["Affine", "Relu", "Affine"]),
        ("Clip(c, , high)", ["Affine", "Relu", "Affine"]),
        ("Clip(c, zero, high)", ["Relu", "Affine", "Relu", "Affine"]),
        ("Clip(c, zero)", ["Relu"]),
    ],
)
def test_a_clip_is_built_from_relus(clip, layers, make_graph, proved) -> None:
    text = f"g (float[1,4,4,4] x) => (y) {{ c = Conv(x, w)  y = {clip} }}"
    weight = np.random.default_rng(0).standard_normal((4, 4, 1, 1))
    model = make_graph(text, w=weight, low=-0.5, high=0.25, zero=0.0)
    written, parity = proved(model)
    assert parity.max_abs_error < 1e-6
    found = [layer.operator.name for layer in read_dab(written.files["model"]).layers]
    assert found == ["FpConv2D", *layers]
    (cost,) = TARGET.examine(model).costs
    passes = "1 pass" if len(layers) == 1 else f"{len(layers)} passes"
    message = f"a clip that more than signs read: {passes} over 64 numbers"
    assert (cost.rule, cost.message) == ("clip-kept", message)


@pytest.mark.parametrize(
    ("clip", "layers"),
    [
        ("Clip(c, least, high)", ["Affine", "Relu", "Affine"]),
        ("Clip(c, minus_infinity, high)", ["Affine", "Relu", "Affine"]),
        ("Clip(c, zero, infinity)", ["Relu"]),
        ("Clip(c, least, infinity)", []),
    ],
)
def test_a_bound_at_the_end_of_all_numbers_needs_no_layer(clip, layers, make_graph, proved) -> None:
    model = make_graph(
        f"g (float[1,4,4,4] x) => (y) {{ c = Conv(x, w)  y = {clip} }}",
        w=np.random.default_rng(0).standard_normal((4, 4, 1, 1)), high=0.25, zero=0.0,
        least=np.finfo(np.float32).min, infinity=np.inf, minus_infinity=-np.inf,
    )  # fmt: skip
    written, parity = proved(model)
    assert parity.max_abs_error < 1e-6
    found = [layer.operator.name for layer in read_dab(written.files["model"]).layers]
    assert found == ["FpConv2D", *layers]


@pytest.mark.parametrize("bound", [65.0, 1e4, 1e30])
@pytest.mark.parametrize("clip", ["Clip(x, low)", "Clip(x, , high)", "Clip(x, low, high)"])
def test_a_clip_that_would_round_away_what_it_should_keep_is_refused(
    clip, bound, make_graph
) -> None:
    text = f"g (float[1,4,4,4] x) => (y) {{ [far] y = {clip} }}"
    (refusal,) = TARGET.refusals(make_graph(text, low=-bound, high=bound))
    assert (refusal.rule, refusal.node) == ("unsupported-operator", "far")
    assert f"{bound:g}" in refusal.message
