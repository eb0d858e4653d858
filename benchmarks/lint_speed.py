"""How fast and how large `bibench lint` of an .onnx file is, start-up included.

Promises: ResNet-34 in 1.2 s and 400 MB, a graph of 1,000 nodes in 2 s.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks._process import BIBENCH, peak_memory_mib, wall_seconds

NODES = 1000


def write_resnet34(path: Path) -> None:
    """ResNet-34 for 224 × 224 images, binarized by reactnet, as .onnx: 87 MB."""
    from bibench_deploy.export.pipeline import write_onnx
    from bibench_deploy.export.source import from_module
    from bibench_train import architectures

    model = architectures.build("resnet34", algorithm="reactnet", num_classes=1000, form="imagenet")
    write_onnx(from_module(model, (1, 3, 224, 224), "resnet34"), path)


def write_chain(path: Path) -> None:
    """Two hundred binary layers, each with its batch norm and a shortcut: 1,000 nodes."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    generator = np.random.default_rng(0)
    arrays = {"zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-1)}
    nodes, source = [], "x"
    for place in range(NODES // 5):
        signs = np.where(generator.standard_normal((16, 16, 3, 3)) >= 0, 1, -1)
        arrays[f"w{place}"] = signs.astype(np.float32)
        for name in ("gamma", "beta", "mean", "variance"):
            arrays[f"{name}{place}"] = generator.uniform(0.5, 1.5, 16).astype(np.float32)
        steps = [
            ("GreaterOrEqual", [source, "zero"], {}),
            ("Where", [f"v{place}_0", "one", "minus"], {}),
            ("Conv", [f"v{place}_1", f"w{place}"], {"pads": [1, 1, 1, 1]}),
            ("BatchNormalization",
             [f"v{place}_2", *(f"{name}{place}" for name in ("gamma", "beta", "mean", "variance"))],
             {}),
            ("Add", [f"v{place}_3", source], {}),
        ]  # fmt: skip
        nodes += [
            helper.make_node(kind, inputs, [f"v{place}_{step}"], f"{kind}_{place}", **attributes)
            for step, (kind, inputs, attributes) in enumerate(steps)
        ]
        source = f"v{place}_4"
    shape = [1, 16, 32, 32]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", source)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def measure() -> str:
    """The median of five runs, and the largest resident set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet34.onnx"
        write_resnet34(path)
        command = [BIBENCH, "lint", str(path), "--target", "lce"]
        seconds, mebibytes = wall_seconds(command, 5), peak_memory_mib(command)
        write_chain(path)
        chain_seconds = wall_seconds(command, 5)
    return (
        f"bibench lint ResNet-34: {seconds:.2f} s, {mebibytes * 1.048576:.0f} MB "
        "(promise 1.2 s, 400 MB)\n"
        f"bibench lint of {NODES:,} nodes: {chain_seconds:.2f} s (promise 2 s)"
    )
