"""Threads: use the cores at hand, and lose little where other programs want them too."""

from __future__ import annotations

import os


def wait_briefly() -> None:
    """Make torch's idle threads sleep soon instead of spinning; call it before torch is imported.

    On a machine with other work, threads that spin at the end of every operation take the cores
    that the thread they wait for needs: a step of ResNet-20 on 2 busy cores took 1.9 s in place of
    0.04 s. A spin of this length costs an idle machine nothing that can be measured. It only
    concerns GNU OpenMP, which reads the variable once, when it is loaded; a value that the user
    has set is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def available_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_available_cores() -> int:
    """Let torch use every core this process may run on; returns how many threads that is.

    Where OMP_NUM_THREADS is set, torch has read it already and is left alone. The count matters for
    equal results too: sums are split among threads, so another count rounds differently.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores())
    return torch.get_num_threads()
