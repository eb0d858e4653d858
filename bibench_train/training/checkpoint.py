"""Checkpoints: weights in safetensors, facts in run.json; no pickle, so loading runs no code.

A run folder holds

    checkpoint.safetensors   the model's weights, what is shipped and exported
    run.json                 what the weights are, with the sha256 of the file above
    resume.safetensors       weights and optimizer after the last whole epoch, for --resume
    metrics.jsonl            one line an epoch

Each file is written beside its place and renamed. `resume.safetensors` holds a whole epoch by
itself and is written first, so a run that is killed between two files can still be resumed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bibench_train import architectures
from bibench_train.errors import CheckpointError
from bibench_train.training.atomic import write_atomically
from bibench_train.training.run_info import RUN_FILE, RunInfo, read_run

CHECKPOINT_FILE = "checkpoint.safetensors"
RESUME_FILE = "resume.safetensors"

# What an algorithm learns beside the weights, `<layer>.binarizer.<name>`: it may be missing from
# the checkpoint that a run starts from, and keeps its initial value then.
_ALGORITHM_STATE = ".binarizer."


def save(
    run_dir: Path, info: RunInfo, model: nn.Module, optimizer: torch.optim.Optimizer
) -> RunInfo:
    """Write all of a run that a whole epoch has changed.

    Returns:
        `info` with the checkpoint's sha256.
    """
    weights = {name: _plain(value) for name, value in model.state_dict().items()}
    label = {"architecture": info.architecture, "algorithm": info.algorithm}
    # One metadata key: safetensors writes several in no fixed order, which would change the sha256.
    checkpoint = safetensors.torch.save(weights, {"bibench": json.dumps(label)})
    info = replace(info, checkpoint_sha256=hashlib.sha256(checkpoint).hexdigest())
    tensors = {f"model.{name}": value for name, value in weights.items()}
    tensors |= _optimizer_tensors(model, optimizer)
    resume = safetensors.torch.save(tensors, {"run": info.to_json()})
    write_atomically(run_dir / RESUME_FILE, resume)
    write_atomically(run_dir / CHECKPOINT_FILE, checkpoint)
    write_atomically(run_dir / RUN_FILE, info.to_json().encode())
    return info


def load_run(run_dir: Path) -> tuple[nn.Module, RunInfo]:
    """The trained model of a run folder or of models/<name>, and what its run.json says.

    Returns:
        The model in eval mode, on the CPU, and its facts.

    Raises:
        CheckpointError: Missing, damaged, or of another model than run.json says.
        UnknownNameError: run.json names an architecture or algorithm that does not exist here.
    """
    info = read_run(run_dir)
    model = build_model(info)
    _load(model, read_weights(run_dir, info), run_dir / CHECKPOINT_FILE, info)
    return model.eval(), info


def build_model(info: RunInfo) -> nn.Module:
    """The run's model with fresh weights."""
    try:
        return architectures.build(
            info.architecture,
            algorithm=info.algorithm,
            num_classes=info.num_classes,
            in_channels=info.input_shape[0],
            image_size=info.input_shape[1:],
            **info.architecture_options,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{RUN_FILE} of {info.name}: no {info.architecture} can be built with "
            f"{info.architecture_options} ({error})"
        ) from error


def read_weights(run_dir: Path, info: RunInfo) -> dict[str, Tensor]:
    """The tensors of checkpoint.safetensors, once its sha256 is the one that run.json names.

    Raises:
        CheckpointError: Missing or damaged.
    """
    path = run_dir / CHECKPOINT_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{run_dir} has a run.json but no {CHECKPOINT_FILE}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != info.checkpoint_sha256:
        raise CheckpointError(
            f"{path} is damaged or not the one that run.json describes: sha256 {found[:12]}…, "
            f"expected {info.checkpoint_sha256[:12]}…; restore it, or train again"
        )
    weights = _tensors(path, content)
    label = json.loads(_metadata(content).get("bibench", "{}"))
    own = {"architecture": info.architecture, "algorithm": info.algorithm}
    if label and label != own:
        raise CheckpointError(
            f"{path} holds {label.get('architecture')} ({label.get('algorithm')}), not "
            f"{info.architecture} ({info.algorithm}) as run.json says; restore either file"
        )
    return weights


def load_init(model: nn.Module, info: RunInfo, init_dir: Path) -> None:
    """Start a model from the weights of another run of its architecture, usually the FP32 one.

    What only the new algorithm has keeps its initial value; what only the other had is left out.

    Raises:
        CheckpointError: The other run is missing, damaged, or of another architecture or shape.
    """
    other = read_run(init_dir)
    if other.architecture != info.architecture:
        raise CheckpointError(
            f"{init_dir} is a {other.architecture} ({other.algorithm}), but a {info.architecture} "
            f"({info.algorithm}) is to be trained; initialise from a {info.architecture}"
        )
    weights = read_weights(init_dir, other)
    own = model.state_dict()
    weights = {k: v for k, v in weights.items() if k in own or _ALGORITHM_STATE not in k}
    kept = {k: v for k, v in own.items() if k not in weights and _ALGORITHM_STATE in k}
    _load(model, weights | kept, init_dir / CHECKPOINT_FILE, info)


def load_resume(run_dir: Path) -> tuple[RunInfo, dict[str, Tensor]]:
    """The last whole epoch of a run: its facts, and its tensors for `restore`.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    path = run_dir / RESUME_FILE
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{run_dir} has no {RESUME_FILE}, so nothing can be resumed; train without --resume"
        ) from error
    tensors = _tensors(path, content)
    return RunInfo.from_json(_metadata(content).get("run", "null"), str(path)), tensors


def restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    info: RunInfo,
    tensors: dict[str, Tensor],
    place: Path,
) -> None:
    """Put the tensors of `load_resume` back into a model and an optimizer of the same kind.

    Raises:
        CheckpointError: They belong to another model.
    """
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    _load(model, weights, place, info)
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, parameter) in enumerate(model.named_parameters()):
        prefix = f"optimizer.{name}."
        slots = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        # In the parameter's own memory format, as the optimizer would have made it.
        state[index] = {
            key: torch.empty_like(parameter).copy_(value) if value.dim() else value
            for key, value in slots.items()
        }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}.{key}": _plain(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged: it is no safetensors file ({error}); restore it, or train again"
        ) from error


def _metadata(content: bytes) -> dict[str, str]:
    # safetensors reads metadata from files only; the layout is a length, then JSON.
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    return metadata


def _load(model: nn.Module, weights: dict[str, Tensor], place: Path, info: RunInfo) -> None:
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in own]
    problems += [
        f"{name} is {list(weights[name].shape)}, not {list(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        raise CheckpointError(
            f"{place} does not fit {info.architecture} ({info.algorithm}, {info.num_classes} "
            f"classes): {problems[0]}" + (f" and {len(problems) - 1} more" if problems[1:] else "")
        )
    model.load_state_dict(weights)
