import json
import sys

import numpy as np
import pytest

from bibench_deploy.errors import MissingExtraError
from bibench_deploy.targets._target import WriteOptions
from bibench_deploy.targets.lce import TARGET, unfused_cost
from bibench_deploy.targets.lce.flatbuffer import read_tflite
from bibench_deploy.targets.lce.unfused_cost import extra_operators, latency_ratio

RNG = np.random.default_rng(3)
ALLOWED = WriteOptions(allow_unfused_scales=True)


def test_operators_that_both_have_are_not_counted(small_tflite_models) -> None:
    binary, float_ = (
        read_tflite(small_tflite_models / f"{name}.tflite") for name in ("binary", "float")
    )
    assert extra_operators(binary, float_) == {"LceQuantize": 1, "LceBconv2d": 1}
    assert extra_operators(float_, binary) == {"CONV_2D": 1}
    assert extra_operators(binary, binary) == {}


class Clock:
    """A model that takes as long as its content says, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[bytes] = []

    def load(self, content: bytes):
        clock = self

        class Interpreter:
            def predict(self, inputs) -> None:
                clock.calls.append(content)
                clock.now += float(content)

        return Interpreter()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(unfused_cost, "load_interpreter", fake.load)
    monkeypatch.setattr(unfused_cost, "make_inputs", lambda interpreter, seed: [])
    monkeypatch.setattr(unfused_cost.time, "perf_counter", lambda: fake.now)
    return fake


def test_both_files_run_in_turn(clock) -> None:
    assert latency_ratio(b"0.03", b"0.02", runs=5, shortest_s=0) == 1.5
    assert clock.calls == [b"0.03", b"0.02"] * (unfused_cost.WARMUP_RUNS + 5)


def test_a_fast_model_runs_for_two_seconds(clock) -> None:
    assert latency_ratio(b"0.003", b"0.002") == 1.5
    assert 2 <= clock.now < 2.1


def test_a_pause_in_between_changes_nothing(clock, monkeypatch) -> None:
    factors = iter([1.0] * 50 + [1000.0] * 24 + [1.0] * 50)

    def load(content: bytes):
        interpreter = clock.load(content)
        run = interpreter.predict

        def predict(inputs) -> None:
            begun_at = clock.now
            run(inputs)
            clock.now += (next(factors) - 1) * (clock.now - begun_at)

        interpreter.predict = predict
        return interpreter

    monkeypatch.setattr(unfused_cost, "load_interpreter", load)
    assert latency_ratio(b"0.0003", b"0.0002", shortest_s=0) == 1.5


def test_a_slow_model_runs_less_often(clock) -> None:
    assert latency_ratio(b"9", b"6") == 1.5
    assert len(clock.calls) < 20


def test_a_missing_interpreter_is_said(monkeypatch) -> None:
    def fail(content: bytes):
        raise ImportError("no larq_compute_engine")

    monkeypatch.setattr(unfused_cost, "load_interpreter", fail)
    with pytest.raises(MissingExtraError):
        latency_ratio(b"", b"")


def test_nothing_is_printed_while_an_interpreter_is_made(small_tflite_models, capfd) -> None:
    content = (small_tflite_models / "binary.tflite").read_bytes()
    assert 0.2 < latency_ratio(content, content, runs=20, shortest_s=0) < 5
    print("heard", file=sys.stderr)
    assert capfd.readouterr() == ("", "heard\n")


FORMS = {
    "map": "y0 = Mul(c, map)",
    "channels and map": "y0 = Mul(c, any)",
    "box": "a = Abs(x)  k1 = ReduceMean<keepdims=1>(a, axes)  k = Conv<pads=[1,1,1,1]>(k1, box)"
    "  y0 = Mul(c, k)",
    "image": "a = Abs(x)  k = ReduceMean<keepdims=1>(a, all)  y0 = Mul(c, k)",
    "channel": "y0 = Mul(c, alpha)",
}


@pytest.fixture(scope="module")
def costs(make_graph, run_graph, lce_writer, tmp_path_factory):
    """For each form its cost; each file computes what its graph does."""
    found = {}
    constants = {
        "w": np.where(RNG.standard_normal((4, 4, 3, 3)) >= 0, 0.5, -0.5),
        "map": RNG.uniform(0.5, 2, (6, 7)),
        "any": RNG.uniform(0.5, 2, (4, 6, 7)),
        "box": np.full((1, 1, 3, 3), 1 / 9),
        "axes": np.array([1]),
        "all": np.array([1, 2, 3]),
        "alpha": RNG.standard_normal((4, 1, 1)),
        "g": RNG.uniform(0.5, 2, 4),
        "b": RNG.standard_normal(4),
    }
    images = RNG.standard_normal((3, 4, 6, 7)).astype(np.float32)
    for form, body in FORMS.items():
        text = (
            "g (float[1,4,6,7] x) => (y) { s = Sign(x)  c = Conv<pads=[1,1,1,1]>(s, w)  "
            f"{body}  n = BatchNormalization(y0, g, b, b, g)  y = Add(n, x) }}"
        )
        used = {name: array for name, array in constants.items() if name in text}
        graph = make_graph(text, **used)
        lowered = TARGET.lower(graph)
        written = lce_writer.write(lowered, tmp_path_factory.mktemp("file"), ALLOWED)
        seen = written.execute(images, wants_signs=False).outputs
        expected = np.concatenate([run_graph(graph, image[None]) for image in images])
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-5)
        found[form] = lce_writer.measure_unfused_scales(lowered, written)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_factor_that_does_not_fuse_costs_operators(form, costs) -> None:
    cost = costs[form]
    if form == "channel":
        assert cost is None
        return
    assert cost["layers"] == 1
    assert cost["extra_operators"]["MUL"] >= 1
    assert cost["latency_ratio"] > 0.2
    assert json.loads(json.dumps(cost)) == cost
