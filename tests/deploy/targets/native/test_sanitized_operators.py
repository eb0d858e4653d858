"""The operators inside ONNX Runtime under AddressSanitizer and UndefinedBehaviorSanitizer.

Found is what the library's own code does: behaviour that is not defined, and accesses beyond its
own memory or a tensor of ONNX Runtime. For the latter each tensor gets memory of its own, in place
of a piece of ONNX Runtime's arena, where a neighbour would be read unnoticed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bibench_deploy.targets.native import build

HERE = Path(__file__).parent
# The first argument is the library, the others are those of pytest.
_RUN_TESTS = """
import sys
from pathlib import Path

import onnxruntime
import pytest

from bibench_deploy.targets.native import shared_library

make_options = onnxruntime.SessionOptions


def options_without_arena():
    options = make_options()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return options


onnxruntime.SessionOptions = options_without_arena
shared_library.find_library = lambda: Path(sys.argv[1])
sys.exit(pytest.main(sys.argv[2:]))
"""


def run_tests(library: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run tests with another library; what a sanitizer finds is on stderr, and ends them."""
    runtimes = [
        subprocess.run(
            ["g++", f"-print-file-name={name}.so"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan", "libubsan", "libstdc++")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python never frees some of its objects
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    # Reports are written by no Python code: capturing all of stderr would lose them.
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--capture=sys"]
    return subprocess.run(
        [sys.executable, "-c", _RUN_TESTS, library, *options, *arguments],
        cwd=HERE.parents[3], check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_the_operators_keep_to_their_memory_and_to_what_is_defined(tmp_path: Path) -> None:
    compiler = build.Compiler(("g++",), build.own_abi())
    library = build.build_library(build.own_abi(), tmp_path, compiler, has_sanitizers=True)
    files = ["test_hostile.py", "test_binary_conv.py", "test_int8_stem.py"]
    done = run_tests(library, *(HERE / name for name in files))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert " passed" in done.stdout
