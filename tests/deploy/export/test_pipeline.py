import contextlib
import copy
import errno
import getpass
import json
import re
import shutil
import threading
import warnings
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import bibench_deploy
from bibench_deploy import targets
from bibench_deploy.artifact import Artifact
from bibench_deploy.errors import (
    ArtifactError,
    ConversionError,
    LoweringError,
    ParityError,
    SourceError,
    UnknownNameError,
)
from bibench_deploy.export.deployability import targets_for
from bibench_deploy.export.pipeline import check_held, export_source
from bibench_deploy.export.source import Source, from_module, resolve_source
from bibench_deploy.graph.facts import binary_convs
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lint.finding import Severity
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.run_model import load_interpreter
from bibench_deploy.targets.lce.target import LceTarget
from bibench_train import algorithms
from bibench_train.errors import NotBinaryError
from bibench_train.harden import is_binary

SHAPE = (1, 3, 8, 8)


@pytest.fixture(scope="module")
def small(make_network, lce_writer, tmp_path_factory) -> Artifact:
    """Made once: tests read it, or change a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LceTarget, "open_writer", lambda _: contextlib.nullcontext(lce_writer))
        folder = tmp_path_factory.mktemp("small") / "out"
        source = from_module(make_network(), SHAPE, "small")
        return export_source(source, target="lce", out=folder, baseline=True)


@pytest.fixture
def exported(small, tmp_path) -> Artifact:
    return Artifact.load(shutil.copytree(small.directory, tmp_path / "out"))


@pytest.fixture
def source(small) -> Source:
    """The same network as an .onnx file: torch need not export it again."""
    return resolve_source(str(small.path("onnx")))


def content_of(path: Path) -> dict[str, bytes]:
    """Every file below a folder, what zip files hold included."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            found[str(file.relative_to(path))] = file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    for name in archive.namelist():
                        found[f"{file.name}!{name}"] = archive.read(name)
    return found


def one_of_each_form() -> list[str]:
    """Algorithms that LCE holds, one for each form in which a layer is left at inference."""
    found = {name: algorithms.load(name) for name in algorithms.names()}
    forms = {
        (algorithm.scale_granularity, algorithm.shifts_input): name
        for name, algorithm in reversed(found.items())
        if "lce" in targets_for(algorithm)
    }
    return sorted(forms.values())


@pytest.mark.parametrize("algorithm", [*one_of_each_form(), "fp32"])
def test_every_form_of_a_layer_exports_with_proof(algorithm, make_network, tmp_path) -> None:
    network = make_network(algorithm)
    artifact = bibench_deploy.export_model(network, torch.zeros(SHAPE), out=tmp_path / "out")
    artifact.check_files()
    count = 0 if algorithm == "fp32" else 4
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": count, "resident": count}
    kinds = [layer["kind"] for layer in artifact.manifest["layers"]]
    assert sum(kind.startswith("binary") for kind in kinds) == count
    assert len(kinds) == 6
    for proof in ("torch_to_onnx", "onnx_to_target"):
        parity = verification["parity"][proof]
        assert parity["top1_agreement"] == 1
        assert parity["max_abs_error"] < 1e-4
        assert parity["flip_rate"] == (0 if count else None)
        assert parity["unexplained_flips"] == (0 if count else None)


# Each by the layers of the small network: a linear layer's scale never differs by position.
REFUSED = {"xnor": {"BIB202": 4}, "xnorpp": {"BIB201": 3}}


@pytest.mark.parametrize("algorithm", REFUSED)
def test_what_no_target_folds_is_refused_by_its_rule_and_leaves_nothing_behind(
    algorithm, make_network, tmp_path
) -> None:
    network = make_network(algorithm)
    with pytest.raises(LoweringError) as raised:
        bibench_deploy.export_model(network, torch.zeros(SHAPE), out=tmp_path / "out")
    codes = Counter(re.search(r"BIB\d+", reason)[0] for reason in raised.value.reasons)
    assert codes == REFUSED[algorithm]
    assert list(tmp_path.iterdir()) == []


# What a checkpoint from the middle of a run is refused for, and where that leaves the reader.
UNFINISHED = {
    "biper": r"BiPer's weights are a sine wave in the first half of a run,.*",
    "bnext": r"BNext's weights are soft: their temperature is 0\.0052,.*, in the last epoch.*",
    "fda": r"FDA-BNN .*adds noise .*: its amplitude is 0\.085, and 0 in the last epoch.*",
}


@pytest.mark.parametrize("algorithm", UNFINISHED)
def test_what_is_not_binary_yet_is_refused_in_one_line_and_leaves_nothing_behind(
    algorithm, make_network, tmp_path
) -> None:
    network = make_network(algorithm, epoch=50)
    with pytest.raises(NotBinaryError) as raised:
        bibench_deploy.export_model(network, torch.zeros(SHAPE), out=tmp_path / "out")
    words = rf"block\.conv1: {UNFINISHED[algorithm]}; finish .* with bibench train --resume"
    assert re.fullmatch(words, str(raised.value))
    assert list(tmp_path.iterdir()) == []


def test_every_algorithm_that_is_binary_only_at_the_end_is_known_here(make_network) -> None:
    soft = {name for name in algorithms.names() if not is_binary(make_network(name, epoch=50))}
    assert soft == set(UNFINISHED)


def test_the_module_stays_as_it_was(make_network, tmp_path) -> None:
    network = make_network()
    before = copy.deepcopy(network.state_dict())
    bibench_deploy.export_model(network, torch.zeros(SHAPE), out=tmp_path / "out")
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_manifest_has_every_field_that_its_document_lists(exported) -> None:
    document = Path(__file__).parents[3].joinpath("docs", "pipeline.md").read_text()
    section = document.partition("## manifest.json")[2].partition("\n## ")[0]
    example = json.loads(re.search(r"```json\n(.*?)```", section, re.DOTALL)[1])
    manifest = json.loads((exported.directory / "manifest.json").read_text())
    assert manifest == exported.manifest
    assert set(manifest) == set(example)
    for key in ("input", "output", "files", "verification"):
        assert set(example[key]) <= set(manifest[key]), key
    assert set(manifest["layers"][0]) >= set(example["layers"][0])
    for proof in ("torch_to_onnx", "onnx_to_target"):
        expected, found = (
            content["verification"]["parity"][proof] for content in (example, manifest)
        )
        assert set(expected) <= set(found)
    assert {"bibench", "python", "torch", "onnx", "onnxruntime", "larq-compute-engine"} <= set(
        manifest["versions"]
    )


def test_the_manifest_tells_what_was_exported(exported) -> None:
    manifest = exported.manifest
    assert (manifest["name"], manifest["target"], manifest["role"]) == ("small", "lce", "model")
    assert manifest["source"]["kind"] == "callable"
    assert manifest["source"]["onnx_sha256"] == manifest["files"]["onnx"]["sha256"]
    assert manifest["input"] == {
        "name": "input", "shape": [1, 8, 8, 3], "layout": "NHWC", "dtype": "float32",
        "rotated": False,
    }  # fmt: skip
    assert manifest["options"] == WriteOptions().to_json()
    assert manifest["output"] == {
        "name": "output", "shape": [1, 5], "layout": "NC", "dtype": "float32",
    }  # fmt: skip
    assert manifest["model_sha256"] == manifest["files"]["model"]["sha256"]
    assert manifest["size_bytes"] == exported.model_path.stat().st_size


def test_the_folder_holds_the_files_of_the_manifest_and_no_others(exported) -> None:
    names = {path.name for path in exported.directory.iterdir()}
    files = {"manifest.json", "model.tflite", "model.keras", "model.onnx"}
    assert names == {*files, "fp32"}
    assert {path.name for path in (exported.directory / "fp32").iterdir()} == files


def test_no_file_tells_where_or_by_whom_it_was_made(small) -> None:
    repository = str(Path(__file__).parents[3])
    private = [
        str(small.directory.parent),
        repository,
        str(Path.home()),
        "site-packages",
        "conftest.py",
    ]
    if len(getpass.getuser()) > 4:
        private.append(getpass.getuser())
    for name, content in content_of(small.directory).items():
        for word in private:
            if word != "/":
                assert word.encode() not in content, f"{name} holds {word}"


def test_the_onnx_file_has_no_metadata_and_reads_anywhere(exported) -> None:
    model = onnx.load(exported.path("onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert not model.metadata_props
    for node in model.graph.node:
        assert not node.metadata_props
        assert not node.doc_string
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_twin_is_the_same_network_in_float(small) -> None:
    artifact = small
    twin = Artifact.load(artifact.directory / "fp32")
    twin.check_files()
    assert (twin.role, twin.name) == ("fp32_twin", artifact.name)
    assert twin.size_bytes > artifact.size_bytes
    assert twin.manifest["source"]["accuracy"] is None
    assert twin.manifest["source"]["trained"] is False
    assert twin.manifest["verification"]["residency"] == {"intended": 0, "resident": 0}
    parity = twin.manifest["verification"]["parity"]
    assert parity["torch_to_onnx"] is None
    assert parity["onnx_to_target"]["top1_agreement"] == 1
    shapes = [
        [layer["weight_shape"] for layer in content.manifest["layers"]]
        for content in (artifact, twin)
    ]
    assert shapes[0] == shapes[1]
    graph = load_graph(twin.path("onnx"))
    assert binary_convs(graph) == []
    assert not {node.op_type for node in graph.graph} & {"Sign", "Where", "GreaterOrEqual"}


def test_a_float_network_has_no_twin(make_network, tmp_path) -> None:
    source = from_module(make_network("fp32"), SHAPE, "small")
    said: list[str] = []
    artifact = export_source(
        source, target="lce", out=tmp_path / "o", baseline=True, verify=False, progress=said.append
    )
    assert not (artifact.directory / "fp32").exists()
    assert said[-1] == "no binary layer, so it is its own FP32 twin"


def test_a_module_that_cannot_be_copied_is_named(tmp_path) -> None:
    class Stuck(nn.ReLU):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    with pytest.raises(SourceError, match="net: Stuck cannot be copied: no copies"):
        export_source(from_module(Stuck(), SHAPE, "net"), target="lce", out=tmp_path / "out")


def test_without_parity_residency_is_still_proved(source, tmp_path) -> None:
    artifact = export_source(source, target="lce", out=tmp_path / "out", verify=False)
    assert artifact.manifest["verification"]["parity"] is None
    assert artifact.manifest["verification"]["residency"] == {"intended": 4, "resident": 4}


class Foreign(nn.Module):
    """Binarized the way others do: torch.sign, a class of its own, weights binarized in forward."""

    class Conv(nn.Conv2d):
        def forward(self, x):
            scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
            weight = scale * torch.sign(self.weight)
            return self._conv_forward(torch.sign(x), weight, self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = self.Conv(8, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.norm(self.conv(self.stem(x))).mean((2, 3)))


def test_a_foreign_module_exports_with_proof_too(tmp_path) -> None:
    torch.manual_seed(0)
    artifact = bibench_deploy.export_model(Foreign(), torch.zeros(SHAPE), out=tmp_path / "out")
    assert artifact.name == "Foreign"
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": 1, "resident": 1}
    assert verification["parity"]["torch_to_onnx"]["max_abs_error"] < 1e-5
    assert verification["parity"]["onnx_to_target"]["unexplained_flips"] == 0
    (finding,) = artifact.manifest["findings"]
    assert (finding["code"], finding["severity"]) == ("BIB101", "warning")


class Mixed(nn.Module):
    """A layer of bibench's own, and one that is binarized by hand."""

    def __init__(self, make_network) -> None:
        super().__init__()
        self.own = make_network().block
        self.stem = nn.Conv2d(3, 8, 1)
        self.foreign = Foreign.Conv(16, 16, 3, padding=1)

    def forward(self, x):
        return self.foreign(self.own(self.stem(x))).mean((2, 3))


def test_own_and_foreign_layers_may_stand_in_one_module(make_network, tmp_path) -> None:
    artifact = bibench_deploy.export_model(
        Mixed(make_network), torch.zeros(SHAPE), out=tmp_path / "out"
    )
    assert artifact.manifest["verification"]["residency"]["resident"] == 4


def test_an_onnx_file_exports_like_the_module_it_came_from(small, source, tmp_path) -> None:
    artifact = export_source(source, target="lce", out=tmp_path / "out")
    assert artifact.name == "model"
    assert artifact.model_sha256 == small.model_sha256
    assert artifact.manifest["source"]["kind"] == "onnx"
    parity = artifact.manifest["verification"]["parity"]
    assert parity["torch_to_onnx"] is None
    assert parity["onnx_to_target"]["unexplained_flips"] == 0


def test_an_onnx_file_with_weights_beside_it_exports_whole(small, tmp_path) -> None:
    onnx.save(
        onnx.load(small.path("onnx")),
        tmp_path / "network.onnx",
        save_as_external_data=True,
        location="network.onnx.data",
        size_threshold=0,
    )
    source = resolve_source(str(tmp_path / "network.onnx"))
    artifact = export_source(source, target="lce", out=tmp_path / "out")
    assert not list(artifact.directory.glob("*.data"))
    (tmp_path / "network.onnx.data").unlink()
    assert len(binary_convs(load_graph(artifact.path("onnx")))) == 4


class Strangers(nn.Module):
    """Two public ways to binarize, in one network: XNOR-Net's and IR-Net's arithmetic."""

    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            weight = torch.sign(weight / weight.std((1, 2, 3), keepdim=True))
            clipped = torch.clamp(x, -1, 1)
            signs = torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))
            return self._conv_forward(signs - clipped + clipped, weight, None)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.one = nn.Sequential(Foreign.Conv(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.two = nn.Sequential(self.Standardized(16, 16, 3, 1, 1), nn.BatchNorm2d(16))
        self.activation = nn.PReLU(16)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(16, 5))

    def forward(self, x):
        x = self.one(self.stem(x))
        x = self.activation(self.two(x) + x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


EXPORTERS = {
    "dynamo, optimised, weights beside the file": {"dynamo": True},
    "TorchScript, batch norm folded": {"dynamo": False},
    "TorchScript, opset 11": {"dynamo": False, "opset_version": 11},
    "TorchScript, opset 13, nothing folded": {
        "dynamo": False, "opset_version": 13, "do_constant_folding": False},
    "TorchScript, any batch": {
        "dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}},
}  # fmt: skip


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_torch_exports_of_strangers_networks_is_proved(exporter, tmp_path, capfd) -> None:
    torch.manual_seed(0)
    network = Strangers().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and says so
        torch.onnx.export(network, (torch.zeros(1, 3, 16, 16),), str(path), **EXPORTERS[exporter])
    artifact = export_source(resolve_source(str(path)), target="lce", out=tmp_path / "out")
    verification = artifact.manifest["verification"]
    assert verification["residency"] == {"intended": 2, "resident": 2}
    assert verification["parity"]["onnx_to_target"]["unexplained_flips"] == 0


def test_a_map_that_comes_out_is_told_as_the_file_gives_it(make_proto, tmp_path) -> None:
    weight = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
    proto = make_proto(
        "g (float[1,4,4,6] x) => (float[1,8,4,6] y) {"
        " s = Sign(x)  y = Conv<pads=[1,1,1,1]>(s, w) }",
        w=weight,
    )
    onnx.save(proto, tmp_path / "map.onnx")
    source = resolve_source(str(tmp_path / "map.onnx"))
    artifact = export_source(source, target="onnx", out=tmp_path / "out", verify=False)
    expected = {"name": "y", "shape": [1, 8, 4, 6], "layout": "NCHW", "dtype": "float32"}
    assert artifact.manifest["output"] == expected


def test_any_batch_of_an_onnx_file_exports(make_proto, tmp_path) -> None:
    weight = np.where(np.random.default_rng(0).standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0)
    for batch in ("N", "4"):
        proto = make_proto(
            f"g (float[{batch},4,4,6] x) => (float[{batch},8,4,6] y) {{"
            " g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)"
            " y = Conv<pads=[1,1,1,1]>(s, w) }",
            w=weight, zero=0.0, one=1.0, minus=-1.0,
        )  # fmt: skip
        onnx.save(proto, tmp_path / "batch.onnx")
        source = resolve_source(str(tmp_path / "batch.onnx"))
        artifact = export_source(source, target="lce", out=tmp_path / "out")
        assert artifact.manifest["input"]["shape"] == [1, 4, 6, 4]
        # As LCE's file gives it, not as PyTorch does.
        assert artifact.manifest["output"] == {
            "name": "y", "shape": [1, 4, 6, 8], "layout": "NHWC", "dtype": "float32",
        }  # fmt: skip


def refused(make_proto, tmp_path, nodes: str, **arrays) -> Source:
    onnx.save(
        make_proto(f"g (float[1,4,8,8] x) => (y) {{ {nodes} }}", **arrays), tmp_path / "bad.onnx"
    )
    return resolve_source(str(tmp_path / "bad.onnx"))


def test_a_lint_error_refuses_the_export_with_code_and_layer(make_proto, tmp_path) -> None:
    source = refused(
        make_proto,
        tmp_path,
        "s = Sign(x)  [late] c = Conv(s, w)  y = Mul(c, rows)",
        w=np.ones((2, 4, 3, 3)),
        rows=np.arange(1.0, 7).reshape(6, 1),
    )
    with pytest.raises(LoweringError, match="late: BIB201 a spatial scale") as raised:
        export_source(source, target="lce", out=tmp_path / "out")
    assert raised.value.target == "lce"
    assert not (tmp_path / "out").exists()


def test_what_the_target_cannot_hold_refuses_the_export(make_proto, tmp_path) -> None:
    with pytest.raises(LoweringError, match="y: BIB505 operator Hardmax is not supported"):
        export_source(
            refused(make_proto, tmp_path, "y = Hardmax(x)"), target="lce", out=tmp_path / "o"
        )


def test_an_unknown_target_is_named_before_anything_is_done(make_network, tmp_path) -> None:
    with pytest.raises(UnknownNameError, match=r'unknown target "lc" \(did you mean "lce"'):
        bibench_deploy.export_model(
            make_network(), torch.zeros(SHAPE), target="lc", out=tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_lowering_that_changes_the_network_fails_the_proof(source, tmp_path, monkeypatch) -> None:
    lower = LceTarget.lower

    def wrong(self, *arguments):
        lowered = lower(self, *arguments)
        norm = next(node for node in lowered.graph if node.op_type == "BatchNormalization")
        norm.inputs[2].const_value = ir.tensor(norm.inputs[2].const_value.numpy() + np.float32(0.5))
        return lowered

    monkeypatch.setattr(LceTarget, "lower", wrong)
    with pytest.raises(ParityError):
        export_source(source, target="lce", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


FAILURES = [
    ConversionError("the conversion process died"),
    KeyboardInterrupt(),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failure_half_way_leaves_the_old_artifact(
    error, exported, source, monkeypatch, lce_writer
) -> None:
    before = content_of(exported.directory)

    def fail(lowered, directory, *_):
        (directory / "model.tflite").write_bytes(b"half")
        raise error

    monkeypatch.setattr(lce_writer, "write", fail)
    with pytest.raises(type(error)):
        export_source(source, target="lce", out=exported.directory)
    assert content_of(exported.directory) == before
    assert [path.name for path in exported.directory.parent.iterdir()] == ["out"]


def test_no_thread_writes_on_when_an_interruption_comes_as_it_starts(
    source, tmp_path, monkeypatch, lce_writer
) -> None:
    start, begun = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        begun.append(thread)
        raise KeyboardInterrupt

    def note(lowered, directory, *_):
        written.append(directory)

    written: list[Path] = []
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(lce_writer, "write", note)
    with pytest.raises(KeyboardInterrupt):
        export_source(source, target="lce", out=tmp_path / "out")
    for thread in begun:
        thread.join()
    assert begun
    assert written == []


def test_a_disk_that_is_full_at_the_manifest_leaves_nothing(source, tmp_path, monkeypatch) -> None:
    write = Path.write_text

    def full(self, *arguments, **options):
        if self.name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        export_source(source, target="lce", out=tmp_path / "out", verify=False)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_twin_leaves_nothing_of_the_model(
    source, tmp_path, monkeypatch, lce_writer
) -> None:
    write = lce_writer.write

    def fail_for_the_twin(lowered, directory, *others):
        if directory.name == "fp32":
            raise ConversionError("not the twin")
        return write(lowered, directory, *others)

    monkeypatch.setattr(lce_writer, "write", fail_for_the_twin)
    with pytest.raises(ConversionError, match="not the twin"):
        export_source(source, target="lce", out=tmp_path / "out", baseline=True, verify=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_never_replaced(source, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ArtifactError, match="is not an exported folder; choose another --out"):
        export_source(source, target="lce", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_artifact_is_replaced_and_its_old_twin_goes(exported, source) -> None:
    assert (exported.directory / "fp32").exists()
    again = export_source(source, target="lce", out=exported.directory, verify=False)
    assert again.name == "model"
    assert not (exported.directory / "fp32").exists()


def test_held_out_images_are_answered_like_pytorch_answers_them(make_network, tmp_path) -> None:
    network = make_network()
    images = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        answers = copy.deepcopy(network).eval()(torch.from_numpy(images)).argmax(1).numpy()
    labels = answers.copy()
    labels[:5] = (labels[:5] + 1) % 5
    source = Source(
        "callable", "small", {"kind": "callable", "name": "small"}, model=network,
        input_shape=(3, 8, 8), test_set=lambda: (images, labels),
    )  # fmt: skip
    artifact = export_source(source, target="lce", out=tmp_path / "out")
    assert artifact.manifest["verification"]["accuracy"] == {
        "images": 20,
        "target_correct": 15,
        "target_percent": 75.0,
        "torch_correct": 15,
        "same_answers": 20,
    }


def test_what_is_being_done_is_told(source, tmp_path) -> None:
    said: list[str] = []
    export_source(source, target="lce", out=tmp_path / "out", progress=said.append)
    assert said[0] == "writing ONNX"
    assert any("converting the model for Larq Compute Engine" in line for line in said)
    assert len(said) == len(set(said))


SMALLER = WriteOptions(fully_connected="int8", float_storage="float16")


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    images = generator.standard_normal((12, *SHAPE[1:])).astype(np.float32)
    return images, generator.integers(0, 5, 12)


def test_smaller_storage_is_measured_against_the_exact_file(
    source, held_out, tmp_path, small
) -> None:
    images, labels = held_out
    asked = replace(source, test_set=lambda: (images, labels))
    artifact = export_source(
        asked, target="lce", out=tmp_path / "out", options=SMALLER, baseline=True
    )
    storage = artifact.manifest["verification"]["storage"]
    assert storage["exact_size_bytes"] == small.size_bytes
    assert storage["size_bytes"] == artifact.size_bytes
    assert artifact.size_bytes == artifact.model_path.stat().st_size
    # The exact file's proof stays: it is what was made smaller.
    assert artifact.manifest["verification"]["parity"] == small.manifest["verification"][
        "parity"
    ] | {"torch_to_onnx": None}
    cost = storage["cost"]
    assert cost["inputs"] == 8
    # It may be 0: where no sign flips, only what follows the last sign moves.
    assert 0 <= cost["max_relative_error"] < 1
    assert artifact.size_bytes < small.size_bytes
    assert 0 <= cost["flip_rate"] < 0.1
    found = {
        "exact_accuracy": storage["exact_accuracy"],
        "accuracy": artifact.manifest["verification"]["accuracy"],
    }
    for name, folder in (("exact_accuracy", small), ("accuracy", artifact)):
        interpreter = load_interpreter(folder.model_path.read_bytes())
        answers = [
            interpreter.predict([np.ascontiguousarray(image.transpose(1, 2, 0)[None])])[0].argmax()
            for image in images
        ]
        assert found[name]["target_correct"] == (np.array(answers) == labels).sum()
    assert artifact.manifest["options"] == SMALLER.to_json()
    twin = Artifact.load(artifact.directory / "fp32")
    assert twin.manifest["verification"]["storage"] is None
    assert {layer["actual_bits"] for layer in twin.manifest["layers"]} == {32}
    artifact.check_files()


def test_without_proof_smaller_storage_tells_its_sizes_alone(source, tmp_path) -> None:
    artifact = export_source(
        source, target="lce", out=tmp_path / "out", options=SMALLER, verify=False
    )
    storage = artifact.manifest["verification"]["storage"]
    assert (storage["cost"], storage["exact_accuracy"]) == (None, None)


def test_a_rotated_input_saves_the_operator_and_is_proved_all_the_same(
    source, tmp_path, small
) -> None:
    artifact = export_source(
        source, target="lce", out=tmp_path / "out", options=WriteOptions(input="rotated")
    )
    assert artifact.manifest["input"]["rotated"] is True
    names = [
        [node.name for node in read_tflite(folder.model_path).operators]
        for folder in (small, artifact)
    ]
    assert names[0] == ["REVERSE_V2", *names[1]]
    assert artifact.manifest["verification"]["parity"]["onnx_to_target"]["unexplained_flips"] == 0


def held_out_of_another_size_are_refused_before_anything_is_converted(
    source, tmp_path, monkeypatch, lce_writer
) -> None:
    monkeypatch.setattr(lce_writer, "write", None)
    labels = np.zeros(2, np.int64)
    asked = replace(source, test_set=lambda: (np.zeros((2, 3, 9, 9), np.float32), labels))
    with pytest.raises(SourceError, match=r"images are \[3, 9, 9\], but model takes \[3, 8, 8\]"):
        export_source(asked, target="lce", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labels", [[0, 5], [-1, 0]])
def test_labels_that_are_no_class_of_the_network_are_refused(labels, source, tmp_path) -> None:
    images = np.zeros((2, 3, 8, 8), np.float32)
    asked = replace(source, test_set=lambda: (images, np.array(labels)))
    words = rf"labels from {min(labels)} to {max(labels)}, but model gives \[1, 5\]"
    with pytest.raises(SourceError, match=words):
        export_source(asked, target="lce", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


SPATIAL = """g (float[1,4,8,8] x) => (y) {
    g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)
    [conv] c = Conv(s, w)  y = Mul(c, gamma) }"""


def test_scales_that_do_not_fold_are_refused_or_allowed_with_a_warning(
    make_graph, tmp_path
) -> None:
    generator = np.random.default_rng(2)
    graph = make_graph(
        SPATIAL, zero=0.0, one=1.0, minus=-1.0,
        w=np.where(generator.standard_normal((8, 4, 3, 3)) >= 0, 1.0, -1.0),
        gamma=generator.uniform(0.5, 2, (8, 6, 6)),
    )  # fmt: skip
    target = targets.load("lce")
    with pytest.raises(LoweringError, match="BIB201"):
        check_held(graph, target)
    linted = check_held(graph, target, WriteOptions(allow_unfused_scales=True))
    (finding,) = [item for item in linted.findings if item.severity is not Severity.INFO]
    assert (finding.code, finding.severity) == ("BIB201", Severity.WARNING)
