"""Damage .onnx files in every way that a file can be damaged, and lint what is left."""

from __future__ import annotations

import contextlib
import os
import random
import select
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx

# Seconds for one file, the start of the process included; a sound file takes 0.2.
LONGEST_S = 60.0
# Of address space: a file of some kilobytes must not take more.
MOST_BYTES = 6 * 2**30

# Lints files one after the other, so that each costs milliseconds: lengths and bytes come in,
# one line for each goes out.
_WORKER = f"""
import resource, struct, sys, tempfile
from pathlib import Path

resource.setrlimit(resource.RLIMIT_AS, ({MOST_BYTES}, {MOST_BYTES}))
from bibench_deploy import targets
from bibench_deploy.errors import DeployError
from bibench_deploy.lint import formats
from bibench_deploy.lint.runner import Report, lint_file

everything = [targets.load(name) for name in targets.names()]
renders = [formats.load(name) for name in formats.names()]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.onnx"
    while head := sys.stdin.buffer.read(8):
        (size,) = struct.unpack("<Q", head)
        path.write_bytes(sys.stdin.buffer.read(size))
        try:
            report = Report("model.onnx", lint_file(path, everything))
            for render in renders:
                render([report])
            verdict = "linted"
        except DeployError as error:
            verdict = "refused " + " ".join(str(error).split())
        except MemoryError:
            verdict = "refused not enough memory"
        except BaseException as error:
            import traceback

            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{{place.filename}}:{{place.lineno}}"
            verdict = f"raised {{type(error).__name__}}: {{error}} at {{where}}"
        print(" ".join(verdict.split()).encode("ascii", "replace").decode(), flush=True)
"""


@dataclass
class Linter:
    """A process that lints; it is started anew when a file killed it."""

    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def judge(self, content: bytes) -> str:
        """`linted`, `refused …`, or else what must not be: `raised …`, `hung`, `died`."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(struct.pack("<Q", len(content)) + content)
            process.stdin.flush()
        except BrokenPipeError:
            return "died"
        ready, _, _ = select.select([process.stdout], [], [], LONGEST_S)
        if not ready:
            self.close()
            return "hung"
        line = process.stdout.readline().decode().strip()
        return line or "died"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


def mutate(content: bytes, seed: int) -> bytes:
    """A damaged copy of an .onnx file; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(chance.randint(1, 3)):
        content = chance.choice(_MUTATIONS)(content, chance)
    return content


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _flip(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if damaged:
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


def _splice(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    place = chance.randrange(len(content) + 1)
    return content[:place] + content[start:end] + content[place:]


def _of_model(change: Callable[[onnx.ModelProto, random.Random], None]) -> Callable[..., bytes]:
    def mutation(content: bytes, chance: random.Random) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(content)
        except Exception:  # it is damaged already
            return content
        change(model, chance)
        return model.SerializeToString()

    return mutation


_SIZES = [-(2**63), -1, 0, 1, 2, 3, 7, 1000, 2**20, 2**31 - 1, 2**31, 2**40, 2**63 - 1]
_OPERATORS = [
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "ConstantOfShape", "Conv",
    "ConvTranspose", "Expand", "Flatten", "Gather", "Gemm", "If", "LSTM", "Loop", "MatMul",
    "MaxPool", "Mul", "Nonsense", "OneHot", "Pad", "PRelu", "Range", "ReduceMean", "Reshape",
    "Resize", "Scan", "Shape", "Sign", "Slice", "Softmax", "Split", "Squeeze", "Tile", "TopK",
    "Transpose", "Unsqueeze", "Where",
]  # fmt: skip


def _change_dimension(model: onnx.ModelProto, chance: random.Random) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    tensors = list(model.graph.initializer)
    if chance.random() < 0.5 and tensors:
        tensor = chance.choice(tensors)
        if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(_SIZES)
        else:
            tensor.dims.append(chance.choice(_SIZES))
    elif values:
        dims = chance.choice(values).type.tensor_type.shape.dim
        if dims and chance.random() < 0.7:
            dims[chance.randrange(len(dims))].dim_value = chance.choice(_SIZES)
        else:
            dims.add().dim_param = "n"


def _change_attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    attributes = [item for node in model.graph.node for item in node.attribute]
    if not attributes:
        return
    attribute = chance.choice(attributes)
    attribute.i = chance.choice(_SIZES)
    for place in range(len(attribute.ints)):
        if chance.random() < 0.5:
            attribute.ints[place] = chance.choice(_SIZES)
    if chance.random() < 0.3:
        attribute.ints.extend(chance.choices(_SIZES, k=chance.randint(1, 5)))
    if chance.random() < 0.2:
        attribute.type = chance.randrange(15)


def _change_wiring(model: onnx.ModelProto, chance: random.Random) -> None:
    nodes = model.graph.node
    names = [name for node in nodes for name in (*node.input, *node.output)]
    names += [tensor.name for tensor in model.graph.initializer] + ["", "nowhere"]
    node = chance.choice(nodes) if nodes else None
    if node is None:
        return
    inputs = node.input if chance.random() < 0.8 or not node.output else node.output
    if inputs and chance.random() < 0.8:
        inputs[chance.randrange(len(inputs))] = chance.choice(names)
    else:
        inputs.append(chance.choice(names))


def _change_operator(model: onnx.ModelProto, chance: random.Random) -> None:
    if model.graph.node:
        node = chance.choice(model.graph.node)
        node.op_type = chance.choice(_OPERATORS)
        if chance.random() < 0.1:
            node.domain = chance.choice(["ai.onnx", "com.example", "onnx.brevitas"])


def _drop_or_repeat(model: onnx.ModelProto, chance: random.Random) -> None:
    lists = [model.graph.node, model.graph.initializer, model.graph.input, model.graph.output,
             model.opset_import]  # fmt: skip
    items = chance.choice(lists)
    if not items:
        return
    place = chance.randrange(len(items))
    if chance.random() < 0.7:
        del items[place]
    else:
        items.append(items[place])


def _change_tensor(model: onnx.ModelProto, chance: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    kind = chance.randrange(4)
    if kind == 0:
        tensor.data_type = chance.randrange(30)
    elif kind == 1:
        tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data) + 1)]
    elif kind == 2:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        places = ["/etc/passwd", "../model.onnx", "absent.data", "model.onnx", ""]
        tensor.external_data.add(key="location", value=chance.choice(places))
        tensor.external_data.add(key="offset", value=str(chance.choice(_SIZES)))
        tensor.external_data.add(key="length", value=str(chance.choice(_SIZES)))
    else:
        tensor.raw_data = bytes(chance.choices([0, 0x7F, 0x80, 0xFF], k=len(tensor.raw_data)))


def _change_opset(model: onnx.ModelProto, chance: random.Random) -> None:
    if model.opset_import:
        model.opset_import[0].version = chance.choice([0, 1, 9, 11, 13, 21, 25, 99, 2**40])
    model.ir_version = chance.choice([0, 3, 8, 13, 99])


_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    _cut, _flip, _flip, _splice,
    *map(_of_model, [_change_dimension, _change_dimension, _change_attribute, _change_attribute,
                     _change_wiring, _change_wiring, _change_operator, _change_operator,
                     _drop_or_repeat, _change_tensor, _change_opset]),
]  # fmt: skip
