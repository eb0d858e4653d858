import subprocess
import sys

from bibench_deploy.targets.lce.operator_names import OPERATOR_NAMES

_LIST = """
from tensorflow.lite.python.schema_py_generated import BuiltinOperator
codes = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
print(" ".join(codes[code] for code in range(max(codes) + 1)))
"""


def test_names_are_those_of_the_schema() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", _LIST], check=True, capture_output=True, text=True, timeout=300
    )
    names = listed.stdout.split()
    assert tuple(names[: len(OPERATOR_NAMES)]) == OPERATOR_NAMES
    assert all("STABLEHLO" in name for name in names[len(OPERATOR_NAMES) :][:3])
