"""Compare an engine with the ONNX graph, aware of sign flips.

A binarized network is not continuous: where a number lies within rounding of zero, two
correct engines may take different signs, and from there on their outputs differ. So the
graph is run twice on ONNX Runtime: once as it is, for the outputs a user would compare,
and once with the other engine's own signs fed in place of every sign. In the second run
each layer is compared on the same inputs; what differs there is that layer's own rounding
or an error. A sign that differs although its number is farther from zero than rounding
explains is an unexplained flip, and fails the proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from bibench_deploy.errors import GraphError, ParityError
from bibench_deploy.graph.facts import BinaryConvFacts, binary_convs, shape_of
from bibench_deploy.graph.fold_constants import constant_of

_Array = npt.NDArray[np.float32]

# Rounding of outputs, relative to the largest one, or to 1: 256 units in the last place.
ROUNDING = 256 * float(np.finfo(np.float32).eps)

# Rounding of a number before a sign, relative to the largest number of its channel that was
# added up or cut on the way to it, shortcuts included: 32 units in the last place. Two engines
# add the same terms in another order. A wrong padding is off by a thousand times as much.
SIGN_ROUNDING = 32 * float(np.finfo(np.float32).eps)

# Numbers that lie exactly on their threshold, where the engine gives another value than the
# graph: this share of a layer's numbers passes, or one, since some come by chance. Behind a
# ReLU it is a third of the numbers.
COMMON_TIES = 1e-3


@dataclass(frozen=True)
class Observation:
    """What an engine computed for each input.

    Attributes:
        outputs: [N, …], one row per input.
        signs: for each binary layer in graph order, what its binarized tensor became: +1
            above the threshold, −1 below, NaN where it reads none; [N, …], the tensor's
            elements in order. Empty or None where there are no binary layers, or the engine
            does not show them.
    """

    outputs: _Array
    signs: tuple[_Array, ...] | None


@dataclass(frozen=True)
class LayerParity:
    """How the signs of one binary layer agree, all inputs together.

    Attributes:
        name: of the layer in the ONNX graph.
        signs: how many signs were compared.
        flips: how many differ on the same inputs; all of them explained by rounding.
        farthest_flip: the largest distance of a flipped number from its threshold, relative to
            the largest term of its sum; 0 without flips. At most `SIGN_ROUNDING`.
    """

    name: str
    signs: int
    flips: int
    farthest_flip: float


@dataclass(frozen=True)
class Parity:
    """How far an engine is from the ONNX graph over a set of inputs.

    Attributes:
        inputs: how many inputs were compared.
        max_abs_error: largest difference of the outputs, each engine with its own signs.
        max_abs_error_same_signs: the same with the engine's signs fed to the graph: what
            is left is rounding. None where there are no signs.
        top1_agreement: share of inputs whose largest output is at the same place.
        flip_rate: share of signs that differ on the same inputs; None where there are none.
        unexplained_flips: signs that differ though rounding cannot explain it, likewise.
        layers: the same for each binary layer, in graph order; empty where there are none.
    """

    inputs: int
    max_abs_error: float
    max_abs_error_same_signs: float | None
    top1_agreement: float
    flip_rate: float | None
    unexplained_flips: int | None
    layers: tuple[LayerParity, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as the manifest keeps them."""
        return asdict(self)


def seeded_inputs(shape: Sequence[int], count: int, seed: int) -> _Array:
    """Standard normal inputs, the same for every engine: float32 [count, *shape[1:]]."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, *shape[1:])).astype(np.float32)


def proof_inputs(shape: Sequence[int], count: int, seed: int) -> _Array:
    """`seeded_inputs`, but that the last one holds zeros, as images of a dark scene do.

    What its negative numbers would have been is 0: a sign of exactly 0 shows there.
    """
    inputs = seeded_inputs(shape, count, seed)
    inputs[-1] = np.maximum(inputs[-1], 0)
    return inputs


def compare(model: ir.Model, inputs: _Array, observed: Observation, engine: str) -> Parity:
    """Compare one engine with an ONNX graph; see `Comparison`."""
    return Comparison(model, inputs).with_engine(observed, engine)


class Comparison:
    """Holds engines against one ONNX graph on one set of inputs; the graph itself runs once.

    Args:
        model: the graph, as `load_graph` gives it or after lowering; it is not changed.
        inputs: [N, …] in the graph's own layout.
    """

    def __init__(self, model: ir.Model, inputs: _Array) -> None:
        self._model = model
        self._inputs = inputs

    @cached_property
    def _plain(self) -> GraphRunner:
        return GraphRunner(self._model)

    @cached_property
    def _forced(self) -> GraphRunner:
        return GraphRunner(self._model, forced=True)

    @cached_property
    def outputs(self) -> _Array:
        """What the graph itself gives for the inputs: [N, …]."""
        return self.run(self._inputs)

    def run(self, inputs: _Array) -> _Array:
        """What the graph itself gives for other inputs: [N, …]."""
        return self._plain.run(inputs)

    def with_engine(self, observed: Observation, engine: str) -> Parity:
        """Compare an engine's outputs and signs with the graph's, run by ONNX Runtime.

        Args:
            observed: what the engine computed for the inputs.
            engine: its name, for the error.

        Raises:
            ParityError: a flip, or a difference of outputs, that rounding does not explain.
        """
        inputs, own_outputs = self._inputs, self.outputs
        if own_outputs.shape != observed.outputs.shape:
            raise ParityError(
                f"{engine} gives outputs {list(observed.outputs.shape)}, the ONNX graph "
                f"{list(own_outputs.shape)}; nothing was written"
            )
        top1 = top1_agreement(own_outputs, observed.outputs)
        max_error = float(np.abs(own_outputs - observed.outputs).max())
        for name, outputs in ((engine, observed.outputs), ("the ONNX graph", own_outputs)):
            if not np.isfinite(outputs).all():
                raise ParityError(f"{name} gives numbers that are not finite; nothing was written")
        if observed.signs:
            same_signs_error, layers = self._on_equal_signs(observed, observed.signs, engine)
            total = sum(layer.signs for layer in layers)
            flip_rate = sum(layer.flips for layer in layers) / total
            return Parity(len(inputs), max_error, same_signs_error, top1, flip_rate, 0, layers)
        self._check_hidden_signs(observed, engine)
        return Parity(len(inputs), max_error, None, top1, None, None)

    @property
    def _largest_output(self) -> float:
        return float(np.abs(self.outputs).max())

    def _check_hidden_signs(self, observed: Observation, engine: str) -> None:
        """Judge outputs alone: a sign that lies within rounding of zero may have flipped."""
        inputs, largest = self._inputs, self._largest_output
        errors = np.abs(self.outputs - observed.outputs).reshape(len(inputs), -1).max(axis=1)
        for row in np.flatnonzero(errors > ROUNDING * max(largest, 1.0)):
            if self._plain.nearest_sign(inputs[row : row + 1]) > SIGN_ROUNDING:
                raise ParityError(
                    f"{engine} differs from the ONNX graph by {errors[row]:.2g} (outputs up to "
                    f"{largest:.2g}), more than rounding explains; nothing was written"
                )

    def _on_equal_signs(
        self, observed: Observation, signs: Sequence[_Array], engine: str
    ) -> tuple[float, tuple[LayerParity, ...]]:
        """Feed the engine's signs to the graph; gives the error of outputs, and each layer's."""
        counts = [_Count(facts) for facts in self._forced.layers]
        error = 0.0
        for row in range(len(self._inputs)):
            given = [layer[row : row + 1] for layer in signs]
            output, sources, ranges = self._forced.run_forced(self._inputs[row : row + 1], given)
            # A graph may give several rows for one input, tokens for instance.
            own = observed.outputs[row * len(output) : (row + 1) * len(output)]
            error = max(error, float(np.abs(output - own).max()))
            for count, source, sign, largest in zip(counts, sources, given, ranges, strict=True):
                count.add(source, sign, largest)
        total = sum(count.signs for count in counts)
        if unexplained := sum(count.unexplained for count in counts):
            worst = max(counts, key=lambda count: count.farthest)
            raise ParityError(
                f"{engine} takes {unexplained} of {total} signs otherwise than the ONNX graph, the "
                f"farthest {worst.farthest:.2g} of its largest term from zero at "
                f"{worst.facts.name}; rounding does not explain that, so nothing was written"
            )
        for count in counts:
            if count.ties > max(COMMON_TIES * count.signs, 1):
                raise ParityError(count.what_ties_become(engine))
        if error > ROUNDING * max(self._largest_output, 1.0):
            raise ParityError(
                f"{engine} differs from the ONNX graph by {error:.2g} on the same signs (outputs "
                f"up to {self._largest_output:.2g}), more than rounding explains; "
                "nothing was written"
            )
        return error, tuple(count.parity() for count in counts)


class _Count:
    """Counts the flips of one layer over all inputs."""

    def __init__(self, facts: BinaryConvFacts) -> None:
        self.facts = facts
        self.signs = self.flips = self.unexplained = self.ties = 0
        self.farthest = 0.0

    def add(self, source: _Array, observed: _Array, largest: _Array) -> None:
        """Compare one input's signs with the numbers whose signs they should be.

        Raises:
            ParityError: a number is not finite, so that nothing can be said of its sign.
        """
        if not np.isfinite(source).all():
            raise ParityError(
                f"{self.facts.name} binarizes numbers that are not finite; look for inf or nan in "
                "the weights and statistics before it. Nothing was written"
            )
        sign = observed.reshape(source.shape)
        is_read = ~np.isnan(sign)
        distance = source - np.float32(self.facts.threshold)
        is_high = distance > 0 if self.facts.at_threshold == -1 else distance >= 0
        is_flipped = is_read & (is_high != (sign > 0))
        is_third = self.facts.at_threshold == 0
        self.ties += int(((is_read if is_third else is_flipped) & (distance == 0)).sum())
        self.signs += int(is_read.sum())
        if is_flipped.any():
            ranges = np.broadcast_to(np.maximum(largest, 1e-30), source.shape)
            distances = np.abs(distance[is_flipped]) / ranges[is_flipped]
            self.flips += distances.size
            self.unexplained += int((distances > SIGN_ROUNDING).sum())
            self.farthest = max(self.farthest, float(distances.max()))

    def parity(self) -> LayerParity:
        """What was counted; a third value at the threshold counts as a flip."""
        thirds = self.ties if self.facts.at_threshold == 0 else 0
        return LayerParity(self.facts.name, self.signs, self.flips + thirds, self.farthest)

    def what_ties_become(self, engine: str) -> str:
        """Why numbers that lie exactly on the threshold fail the proof."""
        facts = self.facts
        found = (
            f"{self.ties} of {self.signs} numbers lie exactly on the threshold of {facts.name}, "
        )
        if facts.at_threshold == 0:
            return (
                f"{found}{facts.threshold:g}: the source makes 0 of them, a third value, and one "
                "bit holds +1; binarize by torch.where(x >= 0, 1.0, -1.0). Nothing was written"
            )
        return (
            f"{found}{facts.threshold:g}: the source makes {facts.at_threshold:+g} of them, "
            f"{engine} does not; put a batch norm before that sign, or a threshold that no sum "
            "meets. Nothing was written"
        )


class GraphRunner:
    """Runs a graph on ONNX Runtime with its optimisations off.

    They fold batch norm into the ±1 weights, and the rounding of that turns dots that are
    exactly zero into tiny numbers of either sign.

    Args:
        model: the graph; it is not changed.
        forced: whether signs are inputs: `run_forced` instead of `run`.
    """

    def __init__(self, model: ir.Model, *, forced: bool = False) -> None:
        import onnxruntime

        clone = model.clone()
        graph = clone.graph
        self._input = graph.inputs[0].name
        self._outputs = [value.name for value in graph.outputs]
        convs = binary_convs(clone)
        self.layers = [conv.facts for conv in convs]
        self._sign_names: list[str] = []
        # For each layer the tensor before its sign, then what that is added up from.
        self._terms: list[list[str]] = []
        self._shown: list[str] = []
        # Float sums: what adds them up reads this, weighted by a row of this norm per channel.
        self._summed: dict[str, tuple[str, _Array]] = {}
        # What the graph's own binarizations give below and above their thresholds.
        self._levels = [
            (np.float32(conv.binarization.low), np.float32(conv.binarization.high))
            for conv in convs
        ]
        self._shapes = [shape_of(conv.binarization.result) for conv in convs]
        if forced:
            self._cut(graph, [conv.binarization.result for conv in convs])
        self._show(graph, [conv.binarization.source for conv in convs])
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        # Threads that wait actively would take the cores from a converter beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        clone.ir_version = min(clone.ir_version, 10)
        try:
            self._session = onnxruntime.InferenceSession(
                ir.to_proto(clone).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own classes have no public home
            raise GraphError(f"ONNX Runtime cannot run this model: {error}") from error

    def run(self, inputs: _Array) -> _Array:
        """The first output for each input, one at a time: [N, …]."""
        rows = [
            self._session.run(self._outputs[:1], {self._input: inputs[index : index + 1]})[0]
            for index in range(len(inputs))
        ]
        return np.concatenate(rows)

    def run_forced(
        self, inputs: _Array, signs: Sequence[_Array]
    ) -> tuple[_Array, list[_Array], list[_Array]]:
        """Run one input with given signs.

        Args:
            inputs: [1, …].
            signs: for each binary layer in graph order, ±1; NaN where the layer reads none;
                the elements of its binarized tensor in order.

        Returns:
            The first output, for each layer the numbers whose signs the graph would have
            taken, and the largest number of their channel on the way to them: an array that
            broadcasts against them.
        """
        feeds: dict[str, _Array] = {}
        for name, shape, (low, high), given in zip(
            self._sign_names, self._shapes, self._levels, signs, strict=True
        ):
            sign = given.reshape(shape)
            # Layers may share a sign, and one of them read less of it.
            kept = feeds.get(name, np.full(shape, high))
            feeds[name] = np.where(np.isnan(sign), kept, np.where(sign > 0, high, low))
        # An input that only signs read may be left over without a reader.
        names = {entry.name for entry in self._session.get_inputs()}
        feeds = {name: feed for name, feed in feeds.items() if name in names}
        feeds[str(self._input)] = inputs
        output, *shown = self._session.run([*self._outputs[:1], *self._shown], feeds)
        return output, *self._sources_and_ranges({**feeds, **self._named(shown)})

    def signs(self, inputs: _Array) -> list[_Array] | None:
        """What every layer's numbers become: −1 or +1, [N, …] in the shape before its sign.

        Args:
            inputs: [N, …].

        Returns:
            One array for each binary layer, in graph order; None where a number lies on a
            threshold that makes a third value of it.
        """
        rows = [self._before_signs(inputs[index : index + 1])[0] for index in range(len(inputs))]
        found: list[_Array] = []
        for layer, sources in zip(self.layers, zip(*rows, strict=True), strict=True):
            distance = np.concatenate(sources) - np.float32(layer.threshold)
            if layer.at_threshold == 0 and (distance == 0).any():
                return None
            is_high = distance > 0 if layer.at_threshold == -1 else distance >= 0
            found.append(np.where(is_high, np.float32(1), np.float32(-1)))
        return found

    def nearest_sign(self, inputs: _Array) -> float:
        """How near to zero any number before a sign is, relative to its largest term.

        Args:
            inputs: [1, …].
        """
        if not self.layers:
            return float("inf")
        found = self._before_signs(inputs)
        return min(
            float((np.abs(source - np.float32(layer.threshold)) / np.maximum(top, 1e-30)).min())
            for layer, source, top in zip(self.layers, *found, strict=True)
        )

    def _before_signs(self, inputs: _Array) -> tuple[list[_Array], list[_Array]]:
        shown = self._session.run(self._shown, {self._input: inputs})
        return self._sources_and_ranges({str(self._input): inputs, **self._named(shown)})

    def _named(self, shown: Sequence[_Array]) -> dict[str, _Array]:
        return dict(zip(self._shown, shown, strict=True))

    def _sources_and_ranges(self, arrays: dict[str, _Array]) -> tuple[list[_Array], list[_Array]]:
        sources = [arrays[terms[0]] for terms in self._terms]
        ranges = []
        for source, terms in zip(sources, self._terms, strict=True):
            largest = np.zeros((), np.float32)
            for name in terms:
                largest = np.maximum(largest, _range_of(arrays[name], source))
                if name in self._summed:
                    read, norms = self._summed[name]
                    # The terms of a sum may be larger than the sum: they cancel.
                    sizes = norms * np.abs(arrays[read]).max()
                    shape = (1, -1, *(1,) * (arrays[name].ndim - 2))
                    largest = np.maximum(largest, _range_of(sizes.reshape(shape), source))
            ranges.append(largest)
        return sources, ranges

    def _cut(self, graph: ir.Graph, signs: Sequence[ir.Value]) -> None:
        """Make every sign a graph input."""
        inputs: dict[ir.Value, ir.Value] = {}
        for sign in signs:
            if sign not in inputs:
                name = f"forced_{len(inputs)}"
                inputs[sign] = ir.Value(name=name, shape=sign.shape, type=sign.type)
                for use in sign.uses():  # and not an output of the graph that it may be, too
                    use.node.replace_input_with(use.idx, inputs[sign])
                graph.inputs.append(inputs[sign])
            self._sign_names.append(str(inputs[sign].name))

    def _show(self, graph: ir.Graph, sources: Sequence[ir.Value]) -> None:
        """Make every tensor before a sign, and those that it is added up from, graph outputs."""
        shown: dict[ir.Value, None] = {}
        for source in sources:
            terms = _terms(source)
            shown.update(dict.fromkeys(terms))
            self._terms.append([str(term.name) for term in terms])
            for term in terms:
                if (layer := _weighted(term)) is not None:
                    read, norms = layer
                    self._summed[str(term.name)] = (str(read.name), norms)
                    if not read.is_graph_input():
                        shown[read] = None
        self._shown = [str(value.name) for value in shown]
        graph.outputs.extend(value for value in shown if not value.is_graph_output())


# Operators that pass rounding on; a convolution's own sum is judged by its output.
_PASSING = frozenset(
    ["Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Div", "Flatten", "LeakyRelu",
     "Mul", "MaxPool", "Neg", "Pad", "PRelu", "Relu", "Reshape", "Sub", "Tanh", "Transpose"]
)  # fmt: skip


def _weighted(value: ir.Value) -> tuple[ir.Value, _Array] | None:
    """What a layer reads that gives `value`, and the norm of its weights [O]; else None."""
    node = value.producer()
    if node is None or node.domain != "" or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weight = constant_of(node.inputs[1])
    shape = shape_of(value)
    if weight is None or weight.ndim < 2 or node.inputs[0] is None or len(shape) < 2:
        return None
    axis = 0 if node.op_type == "Conv" or node.attributes.get_int("transB") else weight.ndim - 1
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    if len(rows) != shape[1]:
        return None  # channels are not on the second axis
    return node.inputs[0], np.linalg.norm(rows, axis=1).astype(np.float32)


def _range_of(term: _Array, source: _Array) -> _Array:
    """The largest number of each channel of a term, to broadcast against what it leads to.

    Where its channels are not those of `source`, or hold one number each, the largest of all.
    """
    sizes = np.abs(term)
    if term.ndim < 3:
        return np.asarray(sizes.max(initial=0), np.float32)
    per_channel = sizes.max(axis=(0, *range(2, term.ndim)))
    if term.ndim == source.ndim and len(per_channel) == source.shape[1]:
        return np.asarray(per_channel.reshape(1, -1, *(1,) * (source.ndim - 2)))
    if source.ndim == 2 and term[0].size == source.shape[1]:
        # Flattened: each channel's numbers stay together.
        return np.asarray(np.repeat(per_channel, source.shape[1] // len(per_channel))[None])
    return np.asarray(per_channel.max(initial=0), np.float32)


def _terms(source: ir.Value) -> list[ir.Value]:
    """A tensor, and the computed float tensors that lead to it without a convolution between."""
    found: dict[ir.Value, None] = {source: None}
    pending = [source]
    while pending:
        node = pending.pop().producer()
        if node is None or node.op_type not in _PASSING:
            continue
        for value in node.inputs:
            is_computed = value is not None and value.producer() is not None
            if value is not None and is_computed and value not in found:
                found[value] = None
                pending.append(value)
    return list(found)


def top1_agreement(one: _Array, other: _Array) -> float:
    """The share of rows [N, …] whose largest number is at the same place in both."""
    places = [outputs.reshape(len(outputs), -1).argmax(axis=1) for outputs in (one, other)]
    return float((places[0] == places[1]).mean())
