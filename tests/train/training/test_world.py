import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")


def run(
    *arguments: str, processes: int, is_checked: bool = True
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launcher, f"--nproc-per-node={processes}", str(SCRIPT), *arguments]
    return subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=is_checked,
        timeout=300,
    )


@pytest.mark.parametrize("algorithm", ["fp32", "reactnet"])
def test_two_processes_train_the_network_that_one_does(tmp_path: Path, algorithm: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(str(one), algorithm, processes=1)
    run(str(two), algorithm, processes=2)
    ours, theirs = (load_file(folder / "checkpoint.safetensors") for folder in (two, one))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        error = (ours[name].double() - expected.double()).abs().max()
        # Rounding of doubles over ten steps; a gradient that is not shared differs by 1e-3.
        assert error <= 1e-9 * expected.abs().max().clamp(min=1.0), name
    facts = [json.loads((folder / "run.json").read_text()) for folder in (two, one)]
    assert [f["processes"] for f in facts] == [2, 1]
    assert facts[0]["accuracy"] == facts[1]["accuracy"]
    assert facts[0]["best"]["epoch"] == facts[1]["best"]["epoch"]
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (two, one)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_processes_that_were_killed_go_on_to_the_bit(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(str(whole), "recu", processes=2)
    assert run(str(stopped), "recu", "1", processes=2, is_checked=False).returncode != 0
    assert json.loads((stopped / "run.json").read_text())["epochs_done"] == 1
    run(str(stopped), "recu", processes=2)
    name = "checkpoint.safetensors"
    assert (stopped / name).read_bytes() == (whole / name).read_bytes()
