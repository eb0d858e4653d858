import subprocess
import sys

import pytest
import torch

from bibench_train import threads


def test_waiting_is_short_unless_the_user_chose_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    threads.wait_briefly()
    assert threads.os.environ["GOMP_SPINCOUNT"] == "3000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    threads.wait_briefly()
    assert threads.os.environ["GOMP_SPINCOUNT"] == "7"


def test_a_wait_policy_of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    threads.wait_briefly()
    assert "GOMP_SPINCOUNT" not in threads.os.environ


def test_threads_are_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {3}, raising=False)
    try:
        assert threads.use_available_cores() == 1
    finally:
        torch.set_num_threads(before)


def test_a_thread_count_of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert threads.use_available_cores() == before


def test_names_and_errors_are_at_hand_without_torch() -> None:
    code = (
        "import sys, bibench_train.errors, bibench_train.threads\n"
        "from bibench_train import algorithms, datasets\n"
        "algorithms.check('bnn'); datasets.check('digits'); bibench_train.threads.wait_briefly()\n"
        "import bibench_deploy.cli.train\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
