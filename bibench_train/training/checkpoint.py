"""Checkpoints: weights in safetensors, facts in run.json; no pickle, so loading runs no code.

A run folder holds

    checkpoint.safetensors   the weights after the last epoch: what is shipped and exported
    best.safetensors         the weights of the epoch with the highest test accuracy
    run.json                 what the weights are, with the sha256 of the two files above
    resume.safetensors       weights and optimizer after the last whole epoch, for --resume
    metrics.csv, .jsonl      one line an epoch

Each file is written beside its place and renamed. `resume.safetensors` holds a whole epoch by
itself and is written first, so a run that is killed between two files is whole again once resumed.
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
BEST_FILE = "best.safetensors"
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
    content = _checkpoint(info, weights)
    sha256 = hashlib.sha256(content).hexdigest()
    info = replace(info, checkpoint_sha256=sha256)
    if info.best is not None and info.best.epoch == info.epochs_done:
        info = replace(info, best=replace(info.best, checkpoint_sha256=sha256))
    tensors = {f"model.{name}": value for name, value in weights.items()}
    tensors |= _optimizer_tensors(model, optimizer)
    resume = safetensors.torch.save(tensors, {"run": info.to_json()})
    write_atomically(run_dir / RESUME_FILE, resume)
    _publish(run_dir, info, content)
    return info


def complete(run_dir: Path, info: RunInfo, tensors: dict[str, Tensor]) -> None:
    """Write again what a kill right after the resume file may have left as it was before.

    Args:
        run_dir: The run.
        info: As `load_resume` gives it.
        tensors: Likewise.
    """
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    _publish(run_dir, info, _checkpoint(info, weights))


def _publish(run_dir: Path, info: RunInfo, content: bytes) -> None:
    if info.best is not None and info.best.epoch == info.epochs_done:
        write_atomically(run_dir / BEST_FILE, content)
    write_atomically(run_dir / CHECKPOINT_FILE, content)
    write_atomically(run_dir / RUN_FILE, info.to_json().encode())


def _checkpoint(info: RunInfo, weights: dict[str, Tensor]) -> bytes:
    label = {"architecture": info.architecture, "algorithm": info.algorithm}
    # One metadata key: safetensors writes several in no fixed order, which would change the sha256.
    return safetensors.torch.save(weights, {"bibench": json.dumps(label)})


def load_run(run_dir: Path, *, is_best: bool = False) -> tuple[nn.Module, RunInfo]:
    """The trained model of a run folder or of models/<name>, and what its run.json says.

    Args:
        run_dir: The folder.
        is_best: Take the epoch with the highest test accuracy in place of the last one.

    Returns:
        The model in eval mode, on the CPU, and its facts: those of the chosen epoch.

    Raises:
        CheckpointError: Missing, damaged, or of another model than run.json says.
        UnknownNameError: run.json names an architecture or algorithm that does not exist here.
    """
    info = read_run(run_dir)
    if is_best:
        if info.best is None:
            raise CheckpointError(
                f"{run_dir} has no best epoch: none could be deployed yet, or the best one was not "
                "kept; leave out --best to take the last"
            )
        info = replace(
            info,
            accuracy=info.best.accuracy,
            epochs_done=info.best.epoch,
            checkpoint_sha256=info.best.checkpoint_sha256,
        )
    name = BEST_FILE if is_best else CHECKPOINT_FILE
    model = build_model(info)
    _load(model, read_weights(run_dir, info, name), run_dir / name, info)
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


def read_weights(run_dir: Path, info: RunInfo, name: str = CHECKPOINT_FILE) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, once its sha256 is the one that `info` names.

    Raises:
        CheckpointError: Missing or damaged.
    """
    path = run_dir / name
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise CheckpointError(f"{run_dir} has a run.json but no {name}") from error
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
    if other.algorithm != info.algorithm:
        # A scale or threshold of the same name means something else in another algorithm.
        weights = {k: v for k, v in weights.items() if _ALGORITHM_STATE not in k}
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
    if info.epochs_done and not any(k.startswith("optimizer.") for k in tensors):
        raise CheckpointError(f"{place} is damaged: it holds no state of the optimizer")
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        slots = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        for key, value in slots.items():
            if value.dim() and value.shape != parameter.shape:
                raise CheckpointError(
                    f"{place} is damaged: {key} of {name} is {list(value.shape)}, not "
                    f"{list(parameter.shape)}"
                )
        # In the parameter's own memory format and on its device, as the optimizer would make it.
        optimizer.state[parameter] = {
            key: torch.empty_like(parameter).copy_(value)
            if value.dim()
            else value.to(parameter.device)
            for key, value in slots.items()
        }


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
