"""How fast the native target is beside LCE, ONNX Runtime FP32 and XNNPACK FP32, on this machine.

Each process loads every candidate and runs them in turn; a ratio is taken within a process, between
medians and between shortest times, which say more where other work runs beside. LCE runs its best
setting on x86, the indirect kernel with XNNPACK. Also: the library's size, and binary convolutions
beside the popcounts that they cannot do without (native_kernels.cpp).

Promises, ResNet-18 at 224: beside AVX-512 LCE takes 4.4 times as long and ONNX Runtime FP32 6.6
times, beside AVX2 2.9 and 4.3 times; portable is not slower than FP32; two threads on idle cores
are 1.6 times as fast as one. ResNet-20 at 32 is faster than XNNPACK FP32. Binary convolutions reach
70 % of the floor. The library has at most 400 kB.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

NETWORKS = (("resnet18", 224), ("resnet20", 32))
PROCESSES, RUNS, WARMUP_RUNS = 5, 15, 3
TWO_THREADS = "native, 2 threads"
INT8_STEM = "native, int8 stem"
_SUITE = Path(__file__).with_name("native_kernels.cpp")


def write_models(folder: Path) -> None:
    """Write each network for native and for LCE, with its FP32 twins, as <network>-<target>/."""
    import torch

    from benchmarks.lce_parity import finished_network
    from bibench_deploy import WriteOptions, export_model

    for architecture, size in NETWORKS:
        model = finished_network("reactnet", architecture, size)
        for target, stem in (("native", "float32"), ("native", "int8"), ("lce", "float32")):
            name = f"{architecture}-{target}" + ("-int8" if stem == "int8" else "")
            export_model(
                model,
                torch.zeros(1, 3, size, size),
                target=target,
                out=folder / name,
                baseline=stem == "float32",
                verify=False,
                options=WriteOptions(stem=stem),
            )


def candidates(folder: Path, architecture: str) -> dict[str, Callable[[], Any]]:
    """What runs one inference of a network, by name; one thread unless it says otherwise."""
    from bibench_deploy.targets.lce.run_model import load_interpreter
    from bibench_deploy.targets.native.shared_library import VARIABLE, instruction_sets, library
    from bibench_deploy.targets.onnx.run_model import load_session

    own, lce = folder / f"{architecture}-native", folder / f"{architecture}-lce"
    path = library()
    found: dict[str, Callable[[], Any]] = {}

    def session(model: Path, threads: int = 1) -> Callable[[], Any]:
        opened = load_session(model.read_bytes(), threads, custom_ops_library=path)
        (entry,) = opened.get_inputs()
        image = np.random.default_rng(0).standard_normal(entry.shape).astype(np.float32)
        return lambda: opened.run(None, {entry.name: image})

    def interpreter(model: Path) -> Callable[[], Any]:
        opened = load_interpreter(model.read_bytes(), 1, "indirect", use_xnnpack=True)
        (shape,) = opened.input_shapes
        image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return lambda: opened.predict([image])

    for name in instruction_sets():
        os.environ[VARIABLE] = name
        found[f"native {name}"] = session(own / "model.onnx")
    del os.environ[VARIABLE]
    found[TWO_THREADS] = session(own / "model.onnx", 2)
    found[INT8_STEM] = session(folder / f"{architecture}-native-int8" / "model.onnx")
    found["ONNX Runtime FP32"] = session(own / "fp32" / "model.onnx")
    found["ONNX Runtime FP32 again"] = session(own / "fp32" / "model.onnx")
    found["LCE"] = interpreter(lce / "model.tflite")
    found["XNNPACK FP32"] = interpreter(lce / "fp32" / "model.tflite")
    return found


def time_in_turn(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """The samples of each candidate in ms; one run of each after the other."""
    for run in runs.values():
        for _ in range(WARMUP_RUNS):
            run()
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(RUNS):
        for name, run in runs.items():
            run()  # brings its weights back into the cache
            begin = time.perf_counter()
            run()
            samples[name].append(1e3 * (time.perf_counter() - begin))
    return samples


def compare(folder: Path, architecture: str) -> list[dict[str, list[float]]]:
    """The samples of every candidate in each of several processes."""
    command = [sys.executable, "-m", "benchmarks.native_speed", str(folder), architecture]
    found = []
    for _ in range(PROCESSES):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def table(architecture: str, processes: list[dict[str, list[float]]]) -> list[str]:
    """One line for each candidate: its time, and how long others take beside it."""
    lines = []
    names = list(processes[0])
    first = next(name for name in names if name.startswith("native"))
    others = [name for name in names if not name.startswith("native")]
    for what, of in (("median", median), ("least", min)):
        times = [{name: of(process[name]) for name in names} for process in processes]

        def ratio(above: str, below: str, times: list[dict[str, float]] = times) -> str:
            found = sorted(process[above] / process[below] for process in times)
            return f"{median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"

        for name in names:
            own = median(process[name] for process in times)
            text = f"{architecture}, {what}: {name} {own:.2f} ms"
            if name.startswith("native"):
                text += "".join(f"; {other} × {ratio(other, name)}" for other in others[:1])
                text += "".join(f"; {other} × {ratio(other, name)}" for other in others[2:])
            lines.append(text)
        lines.append(f"{architecture}, {what}: one thread × {ratio(first, TWO_THREADS)} of two")
        lines.append(f"{architecture}, {what}: float stem × {ratio(first, INT8_STEM)} of int8")
        lines.append(f"{architecture}, {what}: FP32 beside itself × {ratio(others[1], others[0])}")
    return lines


def kernels() -> str:
    """What native_kernels.cpp prints."""
    from bibench_deploy.targets.native.build import build_program, find_compiler, own_abi

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "kernels"
        build_program(_SUITE, program, find_compiler(own_abi()))
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def processor() -> str:
    """Model of the processor, and how many there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    return f"{model}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"


def measure() -> str:
    """All of it, one line each."""
    from bibench_deploy.targets.native import library

    lines = [processor(), f"library: {Path(library()).stat().st_size / 1e3:.0f} kB"]
    lines += [line for line in kernels().splitlines() if "all 16" in line]
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        for architecture, _ in NETWORKS:
            lines += table(architecture, compare(Path(folder), architecture))
    return "\n".join(lines)


if __name__ == "__main__":
    place, network = Path(sys.argv[1]), sys.argv[2]
    print(json.dumps(time_in_turn(candidates(place, network))))
