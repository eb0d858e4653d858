"""What SOURCE means: a run folder, models/<name>, an .onnx file, or package.module:callable."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bibench_deploy.errors import MissingExtraError, SourceError
from bibench_deploy.graph.load import LARGEST_INPUT

if TYPE_CHECKING:
    import torch

_Array = npt.NDArray[np.float32]
_Labels = npt.NDArray[np.int64]

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_FORMS = "a run folder, models/<name>, an .onnx file, or package.module:callable"


@dataclass(frozen=True)
class Source:
    """A network to export or lint.

    Attributes:
        kind: which form it was named in.
        name: what artifacts made from it are called.
        facts: what the manifest says of it: architecture, algorithm, accuracy …
        onnx_path: the file, for an .onnx source; else None.
        model: the module, for any other; None for an .onnx source.
        input_shape: (C, H, W), (C, L) or (C,) of one input of the module.
        test_set: gives held-out images [N, C, H, W], [N, C, L] or [N, C] and their labels [N],
            where the source names a data set that is at hand; else None.
    """

    kind: Literal["run", "onnx", "callable"]
    name: str
    facts: dict[str, Any]
    onnx_path: Path | None = None
    model: torch.nn.Module | None = None
    input_shape: tuple[int, ...] = ()
    test_set: Callable[[], tuple[_Array, _Labels]] | None = None


def resolve_source(
    text: str, input_shape: tuple[int, ...] | None = None, *, is_best: bool = False
) -> Source:
    """Find out what SOURCE names, and load it.

    Args:
        text: what the user typed.
        input_shape: (N, C, H, W), (N, C, L) or (N, C), for a callable: how large its input is.
        is_best: of a run, take the epoch with the highest test accuracy, not the last.

    Raises:
        SourceError: nothing of that name, or it does not give what its form promises.
    """
    path = Path(text)
    if is_best and not path.is_dir():
        raise SourceError(f"{text}: no run folder, and only a run keeps a best epoch")
    if text.endswith(".onnx"):
        if path.is_dir():
            raise SourceError(f"{text}: a folder, not a file; name the .onnx file in it")
        if not path.is_file():
            raise SourceError(f"{text}: no such file; {_nearest(path)}")
        facts = {"kind": "onnx", "name": path.stem, "trained": None}
        return Source("onnx", path.stem, facts, onnx_path=path)
    if path.is_dir():
        return _from_run(path, is_best)
    if _CALLABLE.fullmatch(text):
        return _from_callable(text, input_shape)
    raise SourceError(f"{text}: no such source; name {_FORMS}. {_nearest(path)}")


def from_module(model: torch.nn.Module, input_shape: tuple[int, ...], name: str) -> Source:
    """A source for a module at hand; `input_shape` is (N, C, H, W), (N, C, L) or (N, C)."""
    _check_size(name, input_shape)
    facts = {"kind": "callable", "name": name, "trained": None}
    return Source("callable", name, facts, model=model, input_shape=input_shape[1:])


def with_test_set(source: Source, path: Path) -> Source:
    """The same source, with held-out images from a file.

    Args:
        source: any source.
        path: an .npz file of `images` (float [N, C, H, W], [N, C, L] or [N, C], preprocessed as
            the network expects them) and `labels` (whole numbers [N]).

    Raises:
        SourceError: the file cannot be read, or does not hold these arrays.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except KeyError as error:
        raise SourceError(
            f"{path}: {error.args[0]}; save it by numpy.savez(path, images=…, labels=…)"
        ) from error
    # What numpy and zipfile raise for files of another form.
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: no .npz file of images and labels ({error})") from error
    if images.ndim not in (2, 3, 4) or images.dtype.kind != "f" or not len(images):
        raise SourceError(
            f"{path}: images are {images.dtype} {list(images.shape)}; give float [N, C, H, W], "
            "[N, C, L] or [N, C], preprocessed as the network expects them"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise SourceError(
            f"{path}: labels are {labels.dtype} {list(labels.shape)}; "
            f"give one whole number for each of the {len(images)} images"
        )
    found = np.ascontiguousarray(images, np.float32), labels.astype(np.int64)
    return replace(source, test_set=lambda: found)


def latest_run(folder: Path = Path("runs")) -> Path:
    """The run that was written last under `folder`.

    Raises:
        SourceError: there is none.
    """
    runs = sorted(folder.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise SourceError(
            f"no run in ./{folder}; name a source ({_FORMS}), or train one: bibench train"
        )
    return runs[-1].parent


def _from_run(path: Path, is_best: bool) -> Source:
    try:
        import torch  # noqa: F401 - its absence is told apart from a damaged run

        from bibench_train import datasets
        from bibench_train.training.checkpoint import load_run
    except ImportError as error:
        raise MissingExtraError("reading a run", str(error.name), "train") from error

    if not (path / "run.json").is_file():
        raise SourceError(f"{path}: a folder without run.json, so no run; name {_FORMS}")
    model, info = load_run(path, is_best=is_best)
    facts = {
        "kind": "run",
        "name": info.name,
        "architecture": info.architecture,
        "algorithm": info.algorithm,
        "dataset": info.dataset,
        "accuracy": None if info.accuracy is None else info.accuracy.percent,
        "accuracy_images": None if info.accuracy is None else info.accuracy.images,
        "trained": info.epochs_done > 0,
    }
    is_at_hand = datasets.is_packaged(info.dataset)
    return Source(
        "run",
        info.name,
        facts,
        model=model,
        input_shape=tuple(info.input_shape),
        test_set=(lambda: _test_set(info.dataset)) if is_at_hand else None,
    )


def _test_set(dataset: str) -> tuple[_Array, _Labels]:
    import torch

    from bibench_train import datasets

    batches = list(datasets.load(dataset).test_batches(256))
    images = torch.cat([images for images, _ in batches]).contiguous()
    return images.numpy(), torch.cat([labels for _, labels in batches]).numpy()


def _from_callable(text: str, input_shape: tuple[int, ...] | None) -> Source:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("export from PyTorch", "torch", "train") from error

    if input_shape is None:
        raise SourceError(f"{text}: say how large its input is, such as --input-shape 1,3,224,224")
    _check_size(text, input_shape)
    module_name, _, attribute = text.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        # What the user's code prints must not get between our own lines of output.
        with contextlib.redirect_stdout(sys.stderr):
            factory: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                factory = getattr(factory, part)
            model = factory() if not isinstance(factory, torch.nn.Module) else factory
    except (Exception, SystemExit) as error:  # whatever the user's own code does, name it
        raise SourceError(f"{text}: {type(error).__name__}: {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise SourceError(f"{text}: gives a {type(model).__name__}, not a torch.nn.Module")
    name = attribute.rpartition(".")[2]
    facts = {"kind": "callable", "name": text, "trained": None}
    return Source("callable", name, facts, model=model, input_shape=input_shape[1:])


def _check_size(name: str, input_shape: tuple[int, ...]) -> None:
    if math.prod(input_shape[1:]) > LARGEST_INPUT:
        raise SourceError(
            f"{name}: an input of {list(input_shape)} is beyond what can be run; "
            "name the shape of real images"
        )


def _nearest(path: Path) -> str:
    """What is there under a similar name."""
    folder = path.parent if path.parent.is_dir() else Path()
    siblings = [str(entry) for entry in folder.iterdir() if not entry.name.startswith(".")]
    if folder == Path():
        siblings += [str(entry.parent) for entry in Path().glob("*/*/run.json")]
    # What is there under the very name was named, and is none of the forms.
    others = [name for name in siblings if name != str(path)]
    near = difflib.get_close_matches(str(path), others, n=1)
    return (
        f'The nearest match is "{near[0]}"' if near else f"Nothing in {folder} has a name like it"
    )
