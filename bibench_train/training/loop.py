"""The training loop: epochs of steps, each epoch written down before the next begins."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bibench_train import algorithms, datasets
from bibench_train.algorithms._algorithm import Binarizer
from bibench_train.datasets._dataset import Dataset
from bibench_train.errors import TrainingStoppedError
from bibench_train.harden import is_binary
from bibench_train.layers import binary_layers
from bibench_train.training import checkpoint, metrics
from bibench_train.training.device import peak_memory_mib
from bibench_train.training.evaluation import evaluate
from bibench_train.training.metrics import EpochMetrics
from bibench_train.training.progress import Progress
from bibench_train.training.run_info import Best, RunInfo
from bibench_train.training.schedule import is_same_stage, learning_rate
from bibench_train.training.seeding import seed_epoch
from bibench_train.training.tensorboard import TensorBoard
from bibench_train.training.world import World


class Loop:
    """Trains a model from the epoch that `info` names to the recipe's last one.

    Args:
        out: The run folder, which exists.
        dataset: Gives the batches.
        model: On its device; holds the weights that are trained and stored.
        optimizer: Over the model's parameters.
        info: The run as it is now.
        world: The processes that train together.
        progress: Told of every step and epoch.
        tensorboard: Gets the metrics of every epoch, or None.
    """

    def __init__(
        self,
        *,
        out: Path,
        dataset: Dataset,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        info: RunInfo,
        world: World,
        progress: Progress,
        tensorboard: TensorBoard | None = None,
    ) -> None:
        self._out = out
        self._dataset = dataset
        self._model = model
        self._optimizer = optimizer
        self._info = info
        self._recipe = info.recipe
        self._world = world
        self._progress = progress if world.is_main else Progress()
        self._tensorboard = tensorboard if world.is_main else None
        self._device = next(model.parameters()).device
        algorithm = algorithms.load(info.algorithm)
        self._stages = 1 if algorithm is None else algorithm.stages
        self._steps = dataset.steps_per_epoch(info.recipe.batch_size)
        network = world.distribute(model, self._device)
        self._network = torch.compile(network) if info.is_compiled else network

    def run(self) -> RunInfo:
        """Train, and write the run folder after every epoch.

        Returns:
            The run as it is in the end.

        Raises:
            TrainingStoppedError: It cannot go on; says what was kept.
        """
        epochs = self._recipe.epochs
        first = self._info.epochs_done
        self._progress.start(self._info.name, first, epochs, self._steps)
        try:
            with _stops_named(self._info, self._world):
                for epoch in range(first, epochs):
                    self._finish(*self._run_epoch(epoch))
        except BaseException as error:
            if self._world.is_main:
                _leave_nothing_unfinished(self._out)
            if isinstance(error, TrainingStoppedError):
                what_is_left = kept(self._out, self._info.dataset, self._info.epochs_done)
                raise TrainingStoppedError(f"{error}; {what_is_left}") from error.__cause__
            raise
        finally:
            self._progress.stop()
            if self._tensorboard:
                self._tensorboard.close()
        return self._info

    def _run_epoch(self, epoch: int) -> tuple[EpochMetrics, RunInfo]:
        generator = seed_epoch(self._recipe.seed, epoch)
        start_epoch(self._model, epoch, self._recipe.epochs)
        if epoch > 0 and not is_same_stage(epoch - 1, epoch, self._recipe.epochs, self._stages):
            self._optimizer.state.clear()
        self._model.train()
        batches = self._dataset.train_batches(self._recipe.batch_size, generator, self._world.shard)
        begun_at = time.perf_counter()
        waited = 0.0
        loss_sum, correct = 0.0, 0
        for step in range(self._steps):
            asked_at = time.perf_counter()
            images, labels = next(batches)
            waited += time.perf_counter() - asked_at
            loss, right = self._run_step(epoch, step, images, labels)
            loss_sum += loss * self._batch_images(step)
            correct += right
            self._progress.step(epoch, loss)
        trained = time.perf_counter() - begun_at
        accuracy = evaluate(self._model, self._dataset, world=self._world)
        found = EpochMetrics(
            epoch=epoch + 1,
            loss=loss_sum / self._dataset.train_size,
            train_accuracy=round(100.0 * correct / self._dataset.train_size, 2),
            test_accuracy=accuracy.percent,
            learning_rate=self._learning_rate(epoch, 0),
            seconds=round(time.perf_counter() - begun_at, 3),
            seconds_per_step=round(trained / self._steps, 5),
            data_wait_share=round(waited / trained, 4),
        )
        info = replace(
            self._info,
            epochs_done=epoch + 1,
            accuracy=accuracy,
            seconds_per_step=found.seconds_per_step,
            data_wait_share=found.data_wait_share,
            peak_memory_mib=round(peak_memory_mib(self._device), 1),
        )
        is_better = info.best is None or accuracy.correct > info.best.accuracy.correct
        if is_better and is_binary(self._model):
            info = replace(info, best=Best(epoch=epoch + 1, accuracy=accuracy))
        return found, info

    def _run_step(self, epoch: int, step: int, images: Tensor, labels: Tensor) -> tuple[float, int]:
        """One optimizer step; gives the loss over the whole batch and how many were right."""
        images = images.to(self._device, non_blocking=True)
        labels = labels.to(self._device, non_blocking=True)
        rate = self._learning_rate(epoch, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        is_bf16 = self._recipe.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bf16):
            logits = self._network(images)
        if is_bf16:
            logits = logits.float()
        loss = self._loss(logits, labels, self._batch_images(step))
        right = (logits.argmax(1) == labels).sum()
        totals = torch.stack([loss.detach().double() / self._world.size, right.double()])
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        self._optimizer.step()
        # Read last, so that a GPU is not kept waiting; the last good epoch is on disk.
        value, correct = self._world.total(totals).tolist()
        if not math.isfinite(value):
            raise TrainingStoppedError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1} of "
                f"{self._steps}; try a learning rate below {self._recipe.learning_rate:g}"
            )
        return value, int(correct)

    def _loss(self, logits: Tensor, labels: Tensor, batch_images: int) -> Tensor:
        """This process's part of the loss, so weighted that the mean over processes is the loss."""
        if len(labels) == 0:
            return logits.sum() + penalty(self._model)
        loss = F.cross_entropy(logits, labels, label_smoothing=self._recipe.label_smoothing)
        share = len(labels) * self._world.size / batch_images
        return loss * share + penalty(self._model)

    def _finish(self, found: EpochMetrics, info: RunInfo) -> None:
        if self._world.is_main:
            # First, so that a kill in between leaves a line too many, which resuming drops.
            metrics.append(self._out, found)
            info = checkpoint.save(self._out, info, self._model, self._optimizer)
            if self._tensorboard:
                self._tensorboard.add(found)
        self._info = info
        self._progress.finish_epoch(found)

    def _learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self._recipe, epoch, step, self._steps, self._stages)

    def _batch_images(self, step: int) -> int:
        done = step * self._recipe.batch_size
        return min(self._recipe.batch_size, self._dataset.train_size - done)


@contextlib.contextmanager
def _stops_named(info: RunInfo, world: World) -> Iterator[None]:
    """Turn what a machine cannot do into an error that says what to change."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingStoppedError(
            f"memory ran out with a batch of {info.recipe.batch_size}; try a smaller --batch-size"
        ) from error
    except Exception as error:
        if info.is_compiled and type(error).__module__.startswith(("torch._dynamo", "torch._ind")):
            # The first line says who failed, the second one why.
            reason = " ".join(str(error).split("\n")[:2])
            raise TrainingStoppedError(
                f"torch.compile failed ({reason}); train without --compile"
            ) from error
        if world.size > 1 and "onnection closed by peer" in str(error):
            raise TrainingStoppedError(
                "another process of this training ended; its own message says why"
            ) from error
        raise


def start_epoch(model: nn.Module, epoch: int, epochs: int) -> None:
    """Let the algorithm in every binary layer move its schedule; `epoch` counts from 0."""
    for module in model.modules():
        if isinstance(module, Binarizer):
            module.start_epoch(epoch, epochs)


def penalty(model: nn.Module) -> Tensor | float:
    """What the algorithms add to the loss, summed over the binary layers; 0 for most of them."""
    total: Tensor | float = 0.0
    for _, layer in binary_layers(model):
        term = layer.binarizer.penalty(layer.weight)
        if term is not None:
            total = total + term
    return total


def kept(out: Path, dataset: str, epochs_done: int) -> str:
    """What is left of a run that stopped early, and how to go on, in one phrase."""
    if epochs_done == 0:
        return "no epoch was finished, so nothing was kept"
    if dataset in datasets.names():
        data = "" if datasets.is_packaged(dataset) else " --data DIR"
        command = f"bibench train --resume --out {out}{data}"
    else:
        command = "train(…, is_resumed=True)"
    return f"epoch {epochs_done} is kept in {out}; continue with: {command}"


def _leave_nothing_unfinished(out: Path) -> None:
    if not (out / checkpoint.RESUME_FILE).exists():
        metrics.remove(out)
        # Not empty means that something else lies there, which is not ours to remove.
        with contextlib.suppress(OSError):
            out.rmdir()
