import subprocess
import sys

import pytest

# Each in a process of its own: this one has sympy already.
HEAD = """
import sys
from bibench_deploy.cli._late_sympy import delay_sympy
delay_sympy()
import onnx_ir
assert "sympy.core" not in sys.modules
"""
CASES = {
    "sizes that are numbers and names need none of it": """
shape = onnx_ir.Shape([1, 3, "H"])
assert str(shape[2]) == "H"
assert "sympy.core" not in sys.modules
""",
    "arithmetic with names imports it": """
assert str(onnx_ir.SymbolicDim("H") * 2 + 1) == "2*H + 1"
assert "sympy.core" in sys.modules
""",
    "functions that onnx-ir listed while it was imported work": """
assert str(onnx_ir.SymbolicDim("max(H, 2)") + 1) == "Max(2, H) + 1"
""",
    "what imports it afterwards gets the whole of it": """
from sympy import Expr, Symbol
import sympy.printing
assert isinstance(Symbol("x") + 1, Expr)
assert sympy.printing.sstr(sympy.Integer(2)) == "2"
""",
}


@pytest.mark.parametrize("case", CASES)
def test_sympy_comes_when_it_is_used(case) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + CASES[case]], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_lint_of_a_file_imports_no_sympy(networks, bibench_without) -> None:
    done = bibench_without("sympy.core", "lint", "clean.onnx")
    assert (done.returncode, done.stderr) == (0, "")
