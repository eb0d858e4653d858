"""Rewrite what can be rewritten exactly: a new .onnx file that is proved equal.

  - x > 0 becomes x ≥ the smallest float above 0: the same signs, and 0 is −1 for an engine
    whose sign of 0 is +1 too;
  - weights ±a become ±1 with a factor per channel behind the layer, which folds into batch norm;
  - a clip (Hardtanh) or PReLU that only signs read is dropped.

A sign that makes 0 of 0 (ONNX Sign) stays as it is: no binary layer computes that.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.artifact import writing
from bibench_deploy.errors import SourceError
from bibench_deploy.graph.facts import BinaryConv, binary_convs, shape_of
from bibench_deploy.graph.load import load_graph
from bibench_deploy.lowering.canonical_binarization import canonical_binarization
from bibench_deploy.lowering.drop_clip_before_sign import drop_clip_before_sign
from bibench_deploy.lowering.sign_places import place_signs, sign_places
from bibench_deploy.verify.parity import Comparison, GraphRunner, Observation, Parity, seeded_inputs

_Array = npt.NDArray[np.float32]
_INPUTS = 8
_SEED = 0
_DROPPED = ("Clip", "LeakyRelu", "PRelu")


@dataclass(frozen=True)
class Fix:
    """What was rewritten, and how equal it is.

    Attributes:
        signs: binary layers whose x > 0 is a comparison with the smallest float now.
        scales: binary layers whose weights are ±1 now.
        clips: clips and PReLUs that are gone.
        parity: the new file's outputs against the old one's; None where nothing was rewritten.
    """

    signs: int
    scales: int
    clips: int
    parity: Parity | None


def fix_file(source: Path, destination: Path) -> Fix:
    """Write a file in which everything is rewritten that can be, exactly; `source` stays.

    Where there is nothing to rewrite, nothing is written.

    Raises:
        GraphError: the source cannot be read as an ONNX model.
        SourceError: `destination` is there already, does not end in .onnx, or cannot be made.
        ParityError: the new file computes something else; nothing is written.
    """
    if destination.exists() or destination.is_symlink():
        raise SourceError(f"{destination}: is there already; name a new file for --fix")
    if destination.suffix != ".onnx":
        raise SourceError(f"{destination}: no name of an ONNX file; let it end in .onnx")
    if not destination.parent.is_dir():
        raise SourceError(f"{destination.parent}: no such folder; make it before --fix")
    model = load_graph(source)
    fixed = model.clone()
    chosen = [conv for conv in binary_convs(fixed) if _can_be_rewritten(conv)]
    signs = sum(conv.facts.threshold == 0 and conv.facts.at_threshold == -1 for conv in chosen)
    scales = sum(bool((conv.magnitude != 1).any()) for conv in chosen)
    before = Counter(node.op_type for node in fixed.graph)
    canonical_binarization(fixed, is_chosen=_can_be_rewritten)
    drop_clip_before_sign(fixed)
    after = Counter(node.op_type for node in fixed.graph)
    clips = sum(before[name] - after[name] for name in _DROPPED)
    if not signs + scales + clips:
        return Fix(0, 0, 0, None)
    written = fixed.clone()
    for node in written.graph:
        node.metadata_props.clear()
    scratch = destination.with_name(f".{destination.name}.part")
    try:
        with writing(scratch):
            ir.save(written, scratch)
        # What is compared is the file as it will be read.
        parity = _prove(model, fixed, load_graph(scratch))
        os.replace(scratch, destination)  # noqa: PTH105 - the one call that is atomic everywhere
    except FileNotFoundError as error:
        raise SourceError(f"{destination}: nothing can be made there; choose another") from error
    finally:
        scratch.unlink(missing_ok=True)
    return Fix(signs, scales, clips, parity)


def _can_be_rewritten(conv: BinaryConv) -> bool:
    return conv.facts.at_threshold in (-1, 1) and conv.factor is None


def _prove(model: ir.Model, fixed: ir.Model, written: ir.Model) -> Parity:
    """Compare a file with the graph that it was made from; `fixed` still has its marks."""
    inputs = seeded_inputs(shape_of(model.graph.inputs[0]), _INPUTS, _SEED)
    signs = _signs_of(fixed, inputs)
    names = [conv.facts.name for conv in binary_convs(model)]
    observed = Observation(
        GraphRunner(written).run(inputs),
        None if signs is None else tuple(signs[name] for name in names),
    )
    return Comparison(model, inputs).with_engine(observed, "the fixed file")


def _signs_of(fixed: ir.Model, inputs: _Array) -> dict[str, _Array] | None:
    """Each source layer's signs, [N, elements of what it binarizes]; None if one has a third."""
    taken = GraphRunner(fixed).signs(inputs)
    if taken is None:
        return None
    convs = binary_convs(fixed)
    places = [sign_places(fixed, conv) for conv in convs]
    signs = [
        numbers.reshape(-1, *place.shape) for numbers, place in zip(taken, places, strict=True)
    ]
    return place_signs(convs, places, signs)
