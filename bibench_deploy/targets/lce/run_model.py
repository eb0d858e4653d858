"""Run and time one .tflite file in Larq Compute Engine's interpreter; one self-contained file.

Needs Python 3.8 or newer, numpy below 2 and the package larq-compute-engine; nothing of
bibench, so that a device which has the runtime can run this file as it is. As a script it
prints one JSON object on stdout (see `measure`); what keeps it from running is one line on
stderr and exit code 2.

The interpreter's extension module is loaded from its own file: `import larq_compute_engine`
brings all of TensorFlow with it, seconds and hundreds of megabytes that a run does not need.

Source: larq_compute_engine/tflite/python/interpreter.py, release 0.16.0.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import numpy as np

EXTENSION = "interpreter_wrapper_lite"
KERNELS = ("indirect", "default", "reference")
WARMUP_TOLERANCE = 0.03
EXIT_FAILED = 2


class RuntimeMissingError(ImportError):
    """This Python cannot load the interpreter; the text says what to install."""


def find_extension() -> Path:
    """Find the file of the interpreter's extension module, without importing its package.

    Raises:
        RuntimeMissingError: larq-compute-engine is not installed, or holds no such file.
    """
    # The spec of a top-level package is found without running the package.
    spec = importlib.util.find_spec("larq_compute_engine")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeMissingError(
            "larq_compute_engine is not installed; "
            'run: python -m pip install larq-compute-engine "numpy<2"'
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "tflite" / "python"
    for file in sorted(folder.glob(EXTENSION + "*")):
        if file.suffix in (".so", ".dylib", ".pyd"):
            return file
    raise RuntimeMissingError(f"larq_compute_engine is installed, but has no {EXTENSION} in it")


def load_interpreter(
    model: bytes, threads: int = 1, kernel: str = "indirect", use_xnnpack: bool = True
) -> Any:
    """Make an interpreter that is ready to run.

    A damaged flatbuffer ends the whole process by a signal, not by an exception: check the
    file's hash before, or run in a process of its own.

    Args:
        model: content of the .tflite file.
        threads: at least 1. The indirect kernel uses one whatever is asked for.
        kernel: of LceBconv2d; "indirect", "default" or "reference".
        use_xnnpack: run float operations in XNNPACK.

    Returns:
        An object with `input_shapes`, `input_types`, `output_shapes`, `output_types` (lists,
        one entry for each tensor) and `predict([array, …]) -> [array, …]`, whose arrays have
        exactly these shapes and types.

    Raises:
        RuntimeMissingError: the runtime is missing, or its numpy is too new for it.
        ValueError: `model` is no TFLite flatbuffer, or an argument is out of range.
        RuntimeError: the runtime refuses the model.
    """
    if kernel not in KERNELS:
        raise ValueError(f'unknown kernel "{kernel}"; one of: {", ".join(KERNELS)}')
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if model[4:8] != b"TFL3":
        raise ValueError("this is no TFLite model: the identifier TFL3 is missing")
    if int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeMissingError(
            f"numpy {np.__version__} is too new: this interpreter reads its arrays as empty; "
            'run: python -m pip install "numpy<2"'
        )
    path = str(find_extension())
    loader = ExtensionFileLoader(EXTENSION, path)
    spec = importlib.util.spec_from_file_location(EXTENSION, path, loader=loader)
    if spec is None:
        raise RuntimeMissingError(f"{path} is no extension module of this Python")
    try:
        extension = importlib.util.module_from_spec(spec)
        loader.exec_module(extension)
    except ImportError as error:
        raise RuntimeMissingError(f"this Python cannot load {path}: {error}") from error
    return extension.LiteInterpreter(
        model, threads, kernel == "reference", kernel == "indirect", use_xnnpack
    )


def make_inputs(interpreter: Any, seed: int) -> list[Any]:
    """Make one array for each input tensor: standard normal, or uniform bytes for integers."""
    generator = np.random.default_rng(seed)
    arrays = []
    for shape, dtype in zip(interpreter.input_shapes, interpreter.input_types):  # noqa: B905 - strict= needs Python 3.10
        if np.issubdtype(dtype, np.floating):
            array = generator.standard_normal(shape)
        else:
            array = generator.integers(0, 128, shape)
        arrays.append(np.ascontiguousarray(array, dtype=dtype))
    return arrays


def warm_up(run: Callable[[], float], min_s: float, max_s: float) -> tuple[int, bool]:
    """Call `run` until two windows of calls in a row take the same time.

    A window is 5 calls and 50 ms, whichever lasts longer; two agree if their medians differ by
    at most 3 %.

    Args:
        run: does one inference and gives its time in ms.
        min_s: shortest warm-up in seconds.
        max_s: after this many seconds it stops, settled or not; one window is always whole.

    Returns:
        The number of calls, and whether it settled.
    """
    count = 0
    begin = time.perf_counter()
    before = None
    while True:
        window: list[float] = []
        window_begin = time.perf_counter()
        while len(window) < 5 or time.perf_counter() - window_begin < 0.05:
            window.append(run())
        count += len(window)
        now = statistics.median(window)
        elapsed = time.perf_counter() - begin
        is_settled = before is not None and abs(now - before) <= WARMUP_TOLERANCE * before
        if (is_settled and elapsed >= min_s) or elapsed >= max_s:
            return count, is_settled
        before = now


def take_samples(
    run: Callable[[], float], min_runs: int, min_s: float, max_s: float
) -> list[float]:
    """Call `run` at least `min_runs` times and for `min_s` seconds, but no longer than `max_s`.

    Args:
        run: does one inference and gives its time in ms.
        min_runs: fewest samples; `max_s` comes first.
        min_s: shortest time in seconds.
        max_s: longest time in seconds; the call in progress is finished.

    Returns:
        The time of each call in ms, in order; at least one.
    """
    samples: list[float] = []
    begin = time.perf_counter()
    while True:
        samples.append(run())
        elapsed = time.perf_counter() - begin
        if elapsed >= max_s or (len(samples) >= min_runs and elapsed >= min_s):
            return samples


def peak_memory_mib() -> float:
    """Give the most memory that this process has had resident, in MiB."""
    # ru_maxrss survives exec on Linux: it would show the peak of the process that started us.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def busy_s() -> float | None:
    """Give the time that the processors open to this process have been at work, in seconds.

    Summed over these processors, for whatever process they worked, a hypervisor's share
    included. None where the system does not tell, as Android and macOS.

    Source: proc(5), /proc/stat.
    """
    try:
        names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    except (OSError, AttributeError):
        return None
    # Columns: user, nice, system, idle, iowait, irq, softirq, steal.
    ticks = [sum(map(int, row[1:4] + row[6:9])) for row in rows if row and row[0] in names]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time one model in this process.

    Args:
        arguments: the parsed command line of this script.

    Returns:
        `samples_ms` (every timed inference, in order), `warmup_count`, `warmup_settled`,
        `other_load` (share of the processors' time, 0 to 1, that other processes used while
        the samples were taken; None where unknown), `init_ms` (making the interpreter: reading
        the flatbuffer, packing weights, planning memory), `memory_before_mib` (Python and
        numpy alone), `peak_memory_mib`, `input_shapes`, and the versions `python`, `numpy`,
        `larq_compute_engine` with `extension_sha256`.

    Raises:
        OSError: the model cannot be read.
        RuntimeMissingError: as in `load_interpreter`; also its ValueError and RuntimeError.
    """
    try:
        model = Path(arguments.model).read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {arguments.model}: {error.strerror}") from error
    extension_sha256 = hashlib.sha256(find_extension().read_bytes()).hexdigest()
    memory_before_mib = peak_memory_mib()
    begin = time.perf_counter_ns()
    interpreter = load_interpreter(model, arguments.threads, arguments.kernel, arguments.xnnpack)
    init_ms = (time.perf_counter_ns() - begin) / 1e6
    inputs = make_inputs(interpreter, arguments.seed)
    predict = interpreter.predict
    clock = time.perf_counter_ns

    def run() -> float:
        start = clock()
        predict(inputs)
        return (clock() - start) / 1e6

    # A collection in the middle of a sample would be timed with it.
    gc.collect()
    gc.disable()
    warmup_count, warmup_settled = warm_up(run, arguments.warmup_min_s, arguments.warmup_max_s)
    busy_before_s, own_before_s, begin = busy_s(), time.process_time(), time.perf_counter_ns()
    samples = take_samples(run, arguments.min_runs, arguments.min_seconds, arguments.max_seconds)
    wall_s = (time.perf_counter_ns() - begin) / 1e9
    own_s, busy_after_s = time.process_time() - own_before_s, busy_s()
    other_load = None
    if busy_before_s is not None and busy_after_s is not None:
        others_s = max(0.0, busy_after_s - busy_before_s - own_s)
        other_load = round(others_s / wall_s / len(os.sched_getaffinity(0)), 3)
    return {
        "samples_ms": samples,
        "warmup_count": warmup_count,
        "warmup_settled": warmup_settled,
        "other_load": other_load,
        "init_ms": init_ms,
        "memory_before_mib": round(memory_before_mib, 1),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "input_shapes": [list(array.shape) for array in inputs],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "larq_compute_engine": importlib.metadata.version("larq-compute-engine"),
        "extension_sha256": extension_sha256,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_model.py", description="Time one .tflite file; prints one JSON object."
    )
    parser.add_argument("--model", required=True, help="the .tflite file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kernel", choices=KERNELS, default="indirect", help="of LceBconv2d")
    parser.add_argument("--xnnpack", dest="xnnpack", action="store_true", default=True)
    parser.add_argument("--no-xnnpack", dest="xnnpack", action="store_false")
    parser.add_argument("--warmup-min-s", type=float, default=0.2)
    parser.add_argument("--warmup-max-s", type=float, default=2.0)
    parser.add_argument("--min-runs", type=int, default=20)
    parser.add_argument("--min-seconds", type=float, default=0.5)
    parser.add_argument("--max-seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the input's values")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a script; returns the exit code."""
    try:
        result = measure(_parser().parse_args(argv))
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        print("run_model: " + " ".join(str(error).split()), file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
