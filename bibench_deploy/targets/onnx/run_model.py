"""Run and time one .onnx file in ONNX Runtime; one self-contained file.

Needs Python 3.8 or newer, numpy and the package onnxruntime; nothing of bibench, so that a
device which has the runtime can run this file as it is. As a script it prints one JSON object
on stdout (see `measure`); what keeps it from running is one line on stderr and exit code 2.

A model with operators of a library of one's own runs with `--custom-ops-library`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EXIT_FAILED = 2
WARMUP_TOLERANCE = 0.03
_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16",
    "tensor(int8)": "int8", "tensor(uint64)": "uint64", "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip


class RuntimeMissingError(ImportError):
    """This Python cannot load the runtime; the text says what to install."""


def load_session(
    model: bytes,
    threads: int = 1,
    custom_ops_library: str | None = None,
    profile_prefix: str | None = None,
) -> Any:
    """Make a session that is ready to run on the processor.

    Args:
        model: content of the .onnx file.
        threads: at least 1; of one operator, which is all that runs at a time.
        custom_ops_library: a shared library with operators that the model needs.
        profile_prefix: begin of the path of a file for the runtime's own profile of operators;
            None for none.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        RuntimeMissingError: onnxruntime or numpy is missing.
        ValueError: `threads` is out of range.
        RuntimeError: the runtime refuses the model or the library.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(
            f"onnxruntime cannot be loaded ({error}); run: python -m pip install onnxruntime numpy"
        ) from error
    options = onnxruntime.SessionOptions()
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        if custom_ops_library is not None:
            options.register_custom_ops_library(custom_ops_library)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions have no common base but this
        raise RuntimeError(f"ONNX Runtime {onnxruntime.__version__} refuses: {error}") from error


def make_inputs(session: Any, seed: int) -> dict[str, Any]:
    """Make an array for each input: standard normal, or 0 to 127 for integers; free axes are 1.

    Raises:
        ValueError: an input is no tensor of numbers.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays = {}
    for entry in session.get_inputs():
        if entry.type not in _TYPES:
            raise ValueError(f"input {entry.name} is a {entry.type}, not a tensor of numbers")
        dtype = np.dtype(_TYPES[entry.type])
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in entry.shape]
        if dtype.kind == "f":
            array: Any = generator.standard_normal(shape)
        else:
            array = generator.integers(0, 2 if dtype.kind == "b" else 128, shape)
        arrays[entry.name] = np.ascontiguousarray(array, dtype=dtype)
    return arrays


def warm_up(run: Callable[[], float], min_s: float, max_s: float) -> tuple[int, bool]:
    """Call `run` until two windows of calls in a row take the same time.

    A window is 5 calls and 50 ms, whichever lasts longer; two agree if their medians differ by
    at most 3 %.

    Returns:
        The number of calls, and whether it settled before `max_s` seconds.
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
    """Call `run` at least `min_runs` times and for `min_s` seconds, but no longer than `max_s`."""
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


def library_sha256() -> str | None:
    """Hash of the runtime's extension module; None where it is not found."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    for file in sorted(folder.glob("onnxruntime_pybind11_state*")):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return None


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the model, warm up, take samples.

    Args:
        arguments: as `_parser` gives them.

    Returns:
        `samples_ms` (every timed inference, in order), `warmup_count`, `warmup_settled`,
        `other_load` (share of the processors' time, 0 to 1, that other processes used while
        samples were taken; null where the system does not tell), `init_ms` (from the model's
        bytes to a session), `peak_memory_mib`, and the versions `python`, `numpy`,
        `onnxruntime` with `extension_sha256`.

    Raises:
        OSError: the model cannot be read.
        RuntimeMissingError: as in `load_session`; also its ValueError and RuntimeError.
    """
    try:
        model = Path(arguments.model).read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {arguments.model}: {error.strerror}") from error
    begin = time.perf_counter_ns()
    session = load_session(model, arguments.threads, arguments.custom_ops_library)
    init_ms = (time.perf_counter_ns() - begin) / 1e6
    inputs = make_inputs(session, arguments.seed)
    clock = time.perf_counter_ns

    def run() -> float:
        start = clock()
        session.run(None, inputs)
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

    import numpy
    import onnxruntime

    return {
        "samples_ms": samples,
        "warmup_count": warmup_count,
        "warmup_settled": warmup_settled,
        "other_load": other_load,
        "init_ms": init_ms,
        "peak_memory_mib": peak_memory_mib(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "extension_sha256": library_sha256(),
    }


def profile_operators(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the model under the runtime's own profiler; nothing of this is a latency.

    Args:
        arguments: as `_parser` gives them; `operators` says how many inferences.

    Returns:
        `inferences`, and `operators`: a list of `type`, `count` and `ms`, of one inference, the
        longest first.

    Raises:
        OSError: the model cannot be read, or the profile not be written.
        RuntimeMissingError: as in `load_session`; also its ValueError and RuntimeError.
    """
    model = Path(arguments.model).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        session = load_session(
            model, arguments.threads, arguments.custom_ops_library, str(Path(folder) / "profile")
        )
        inputs = make_inputs(session, arguments.seed)
        # The first one is slower: pages are touched for the first time.
        for _ in range(1 + arguments.operators):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    first_end = min(
        event["ts"] + event["dur"] for event in events if event.get("name") == "model_run"
    )
    found: dict[str, list[float]] = {}
    for event in events:
        is_kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if is_kernel and event["ts"] >= first_end:
            found.setdefault(event["args"]["op_name"], []).append(event["dur"] / 1e3)
    count = arguments.operators
    operators = [
        {"type": name, "count": round(len(times) / count), "ms": sum(times) / count}
        for name, times in found.items()
    ]
    operators.sort(key=lambda operator: -operator["ms"])
    return {"inferences": count, "operators": operators}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_model.py", description="Time one .onnx file; prints one JSON object."
    )
    parser.add_argument("--model", required=True, help="the .onnx file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--custom-ops-library", metavar="PATH", help="with operators it needs")
    parser.add_argument("--warmup-min-s", type=float, default=0.2)
    parser.add_argument("--warmup-max-s", type=float, default=2.0)
    parser.add_argument("--min-runs", type=int, default=20)
    parser.add_argument("--min-seconds", type=float, default=0.5)
    parser.add_argument("--max-seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the input's values")
    parser.add_argument(
        "--operators", type=int, metavar="N", help="profile N inferences by operator instead"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a script; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        result = profile_operators(arguments) if arguments.operators else measure(arguments)
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        print("run_model: " + " ".join(str(error).split()), file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
