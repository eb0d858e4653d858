"""What daBNN exports of ResNet-18 at 224 take, weigh and err.

Promise: 10 s and 2 GB with proof; the file within 1 % of its own numbers (packed signs and
float rest); outputs within 1e-4 of PyTorch's where no sign flips; no unexplained flip over 20
seeded inputs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._process import BIBENCH, peak_tree_memory_mib, wall_seconds

_FACTORY = """
from bibench_train import architectures

def resnet18():
    return architectures.build("resnet18", algorithm="bnn", num_classes=1000, form="imagenet")
"""
_INPUTS = 20
_SEED = 1


def measure() -> str:
    """The median of three runs of the command line, the memory of all its processes, the rest."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "network.py").write_text(_FACTORY)
        command = [
            BIBENCH, "export", "network:resnet18", "--input-shape", "1,3,224,224",
            "--target", "dabnn", "--padding", "minus-one",
        ]  # fmt: skip
        seconds = wall_seconds(command, 3, cwd=folder)
        gigabytes = peak_tree_memory_mib(command, cwd=folder) * 2**20 / 1e9
    return (
        f"ResNet-18 (224) to daBNN: {seconds:.1f} s, {gigabytes:.2f} GB (promise 10 s, 2 GB); "
        f"{proof_text()}"
    )


def proof_text() -> str:
    """Size against content, errors and flips of one network that training has finished."""
    from benchmarks.lce_parity import finished_network
    from bibench_deploy.export.pipeline import write_onnx
    from bibench_deploy.export.source import from_module
    from bibench_deploy.graph.facts import binary_convs
    from bibench_deploy.graph.load import load_graph
    from bibench_deploy.targets._target import WriteOptions
    from bibench_deploy.targets.dabnn import TARGET
    from bibench_deploy.targets.dabnn.flatbuffer import read_dab
    from bibench_deploy.verify.parity import Observation, compare, seeded_inputs

    shape = (1, 3, 224, 224)
    source = from_module(finished_network("bnn", "resnet18", 224), shape, "resnet18")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        reference = write_onnx(source, path)
        assert reference is not None
        graph, options = load_graph(path), WriteOptions(padding="exact")
        with TARGET.open_writer() as writer:
            written = writer.write(TARGET.lower(graph), Path(folder), options, graph)
        file = written.files["model"]
        content = sum(tensor.data.nbytes for tensor in read_dab(file).tensors)
        overhead = 100 * (file.stat().st_size / content - 1)
        inputs = seeded_inputs(shape, _INPUTS, _SEED)
        seen = written.execute(inputs)
        signs = tuple(seen.signs[conv.facts.name] for conv in binary_convs(graph))
        parity = compare(graph, inputs, Observation(seen.outputs, signs), "daBNN")
        expected = reference.observe(graph, inputs)
    # Inputs on which PyTorch and the file take the same signs everywhere.
    assert expected.signs is not None
    is_same = [
        all(
            (own[row].ravel() == other[row].ravel()).all()
            for own, other in zip(signs, expected.signs, strict=True)
        )
        for row in range(_INPUTS)
    ]
    errors = abs(seen.outputs - expected.outputs).max(axis=1)[is_same]
    return (
        f"file {overhead:.2f} % over its numbers (promise 1 %); max error against PyTorch "
        f"{errors.max():.1e} on the {sum(is_same)} of {_INPUTS} inputs without a flip (promise "
        f"1e-4), {parity.unexplained_flips} unexplained flips (promise 0)"
    )
