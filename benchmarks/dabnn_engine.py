"""Hold .dab files against daBNN itself: `python -m benchmarks.dabnn_engine DABNN MODEL.dab…`.

DABNN is a checkout of https://github.com/JDAI-CV/dabnn, whose sources are compiled as they are,
for x86-64, and for ARMv8 and ARMv7 under emulation where Debian's compilers for them are there:
apt-get install flatbuffers-compiler libflatbuffers-dev qemu-user-static g++-aarch64-linux-gnu
g++-arm-linux-gnueabihf. What stands in for third parties: a header without any output for glog,
and the code that today's flatc makes of the engine's own schema.

For each model and processor one line, over 20 seeded inputs: on how many the engine and the
executor in numpy read the same signs in all binary layers, how far their outputs differ there,
and how near to 0 the first signs lie that differ.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bibench_deploy.targets.dabnn.executor import DabExecutor
from bibench_deploy.targets.dabnn.flatbuffer import read_dab, write_dab
from bibench_deploy.targets.dabnn.schema import DabModel, Operator
from bibench_deploy.verify.parity import seeded_inputs

_Array = npt.NDArray[np.float32]
_INPUTS = 20
_SEED = 1
_DRIVER = Path(__file__).with_suffix(".cpp")
# Processor → prefix of its compiler, flags, and what runs its programs here.
_PROCESSORS = {
    "x86-64": ("", [], []),
    "ARMv8": ("aarch64-linux-gnu-", [], ["qemu-aarch64-static"]),
    "ARMv7": ("arm-linux-gnueabihf-", ["-march=armv7-a", "-mfpu=neon"], ["qemu-arm-static"]),
}
_GLOG = """#pragma once
#include <iostream>
struct Nowhere { template <class T> Nowhere& operator<<(const T&) { return *this; } };
#define LOG(severity) Nowhere()
#define VLOG(level) Nowhere()
"""
# Clang, for which the engine's ARMv7 kernels are written, takes a register without braces.
_BARE_REGISTER = re.compile(r"\b(v(?:ld|st)1\.\d+\s+)(q\d+)(\s*,)")


def build(checkout: Path, folder: Path, processor: str) -> Path:
    """Compile the engine, unmodified, and the driver; gives the program."""
    prefix, flags, _ = _PROCESSORS[processor]
    (folder / "glog").mkdir(exist_ok=True)
    (folder / "glog/logging.h").write_text(_GLOG)
    schema = ["flatc", "--cpp", "--scoped-enums", "-o", folder / "common"]
    subprocess.run([*schema, checkout / "common/dab.fbs"], check=True)
    compiler = [
        f"{prefix}g++", "-std=c++17", "-O3", "-DNDEBUG", "-DEIGEN_MPL2_ONLY", "-w", *flags,
        f"-I{folder}", f"-I{checkout}", f"-I{checkout}/third_party/eigen", "-idirafter",
        "/usr/include",
    ]  # fmt: skip
    sources = [_DRIVER, checkout / "common/Shaper.cpp", *(checkout / "dabnn").glob("*.cpp")]
    objects = []
    for source in [*sources, *(checkout / "dabnn/layers").glob("*.cpp")]:
        assembly = folder / f"{processor}-{source.stem}.s"
        subprocess.run([*compiler, "-S", source, "-o", assembly], check=True)
        if processor == "ARMv7":
            assembly.write_text(_BARE_REGISTER.sub(r"\1{\2}\3", assembly.read_text()))
        objects.append(assembly)
    program = folder / processor
    subprocess.run([*compiler, "-static", *objects, "-o", program], check=True)
    return program


def run(program: Path, model: DabModel, images: _Array, name: str) -> _Array:
    """The map `name` for each image, [N, …]."""
    folder = program.parent
    write_dab(model, folder / "model.dab")
    (folder / "inputs").write_bytes(images.astype("<f4").tobytes())
    emulator = _PROCESSORS[program.name][2]
    files = [folder / "model.dab", folder / "inputs", folder / "outputs"]
    subprocess.run([*emulator, program, *files, name], check=True)
    return np.fromfile(folder / "outputs", "<f4").reshape(len(images), -1)


def compare(program: Path, path: Path) -> str:
    """One line on a model."""
    model = read_dab(path)
    _, height, width, channels = model.input_shape
    images = np.moveaxis(seeded_inputs((1, channels, height, width), _INPUTS, _SEED), 1, -1)
    executor = DabExecutor(model)
    own: list[list[_Array]] = []
    outputs = []
    for image in images:
        read: list[_Array] = []
        outputs.append(executor.run(image, lambda _, numbers, read=read: read.append(+numbers)))
        own.append(read)
    is_same = np.ones(_INPUTS, bool)
    nearest: list[float] = []
    binary = [i for i, layer in enumerate(model.layers) if layer.operator is Operator.BinConv2D]
    for number, index in enumerate(binary):
        # What a layer reads is written over later on: it is seen at the end of a shorter file.
        cut = replace(model, layers=model.layers[:index])
        engine = run(program, cut, images, model.layers[index].text("input"))
        for place in np.flatnonzero(is_same):
            mine = own[place][number].reshape(-1)
            differs = (mine > 0) != (engine[place] > 0)
            if differs.any():
                is_same[place] = False
                nearest.append(float(abs(mine[differs]).max()))
    whole = run(program, model, images, model.output_name)
    errors = abs(whole - np.stack(outputs).reshape(_INPUTS, -1)).max(axis=1)[is_same]
    signs = sum(numbers.size for read in own for numbers in read)
    flips = f", elsewhere the first to differ at |x| ≤ {max(nearest):.1e}" if nearest else ""
    return (
        f"{path}, {program.name}: {is_same.sum()} of {_INPUTS} inputs with the same signs "
        f"({signs:,} in all) and outputs within {errors.max(initial=0):.1e}{flips}"
    )


def main() -> None:
    """Print one line per model and processor."""
    checkout, *models = (Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        for processor, (prefix, _, _) in _PROCESSORS.items():
            if shutil.which(f"{prefix}g++") is None:
                print(f"{processor}: not held against, since {prefix}g++ is not there")
                continue
            program = build(checkout, Path(folder), processor)
            for model in models:
                print(compare(program, model), flush=True)


if __name__ == "__main__":
    main()
