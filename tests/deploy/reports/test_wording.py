from __future__ import annotations

import pytest

from bibench_deploy.reports import build_report, wording


def test_the_summary_says_size_parity_and_accuracy(demo):
    assert wording.summary(demo) == (
        "resnet20 reactnet is 17.8× smaller than its FP32 twin, gives the same answers in "
        "PyTorch, ONNX Runtime and LCE, and is 98.89 % accurate (FP32: 98.06 %)."
    )


@pytest.mark.parametrize(("target", "named"), [("lce", "LCE"), ("dabnn", "daBNN"), ("native", "")])
def test_the_host_check_speaks_of_the_engines_that_ran(
    write, header, artifact, cell, target, named
):
    text = wording.host_check(
        build_report([write(header(), artifact("m", target=target), cell("m", 1, 2.0))])
    )
    assert [name for name in ("LCE", "daBNN") if name in text] == ([named] if named else [])
    assert text.endswith("latency has to be measured there.")


def test_the_summary_claims_no_parity_that_was_not_checked(write, header, artifact):
    report = build_report([write(header(), artifact("m", parity=None, accuracy=98.0))])
    assert wording.summary(report) == (
        "resnet20 reactnet takes 61.3 kB, was not checked for parity, and is 98.00 % accurate."
    )


def test_the_summary_of_an_untrained_model_says_so(write, header, artifact):
    report = build_report([write(header(), artifact("m", trained=False))])
    assert wording.summary(report).endswith("has untrained weights: latency and size only.")


@pytest.mark.parametrize(
    ("flips", "clause"),
    [
        (0, "gives the same answer in ONNX Runtime and LCE for 50 % of the inputs"),
        (9, "has 9 unexplained sign flips between ONNX Runtime and LCE"),
    ],
)
def test_the_summary_names_a_disagreement(write, header, artifact, flips, clause):
    step = {"max_abs_error": 3.0, "top1_agreement": 0.5, "flip_rate": 0.1}
    step["unexplained_flips"] = flips
    parity = {"inputs": 8, "seed": 0, "torch_to_onnx": None, "onnx_to_target": step}
    report = build_report([write(header(), artifact("m", parity=parity))])
    assert clause in wording.summary(report)


def test_the_summary_of_a_float_model_promises_nothing_binary(write, header, artifact):
    report = build_report([write(header(), artifact("m", algorithm="fp32", binary=0))])
    assert wording.summary(report) == "resnet20 fp32 takes 61.3 kB and has no binary layer."


@pytest.mark.parametrize("value", [0.9999999, 0.9999])
def test_almost_all_is_never_rounded_to_all(value):
    assert wording.fraction(value) != "100 %"


@pytest.mark.parametrize("value", [1e-9, 1e-6, 0.0004])
def test_almost_none_is_never_rounded_to_none(value):
    assert wording.fraction(value) != "0 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.999, "10.0 ms"), (99.96, "100 ms"), (999.9, "1000 ms"), (0.0, "0 ms"), (1.0, "1.00 ms")],
)
def test_rounding_up_keeps_three_digits(value, text):
    assert wording.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 B"), (1000, "1.00 kB"), (999_600, "1.00 MB"), (0, "0 B")]
)
def test_sizes_change_unit_where_they_round_up_to_it(value, text):
    assert wording.size(value) == text


def test_a_command_can_be_pasted_into_a_shell():
    assert wording.command_line(["bibench", "profile", "my model"]) == "bibench profile 'my model'"


def test_the_summary_of_another_padding_claims_no_equal_answers(write, header, artifact):
    record = artifact("m", accuracy=98.0)
    record["manifest"]["target"] = "dabnn"
    record["manifest"]["verification"]["padding"] = {"mode": "minus-one", "cost": None}
    held_out = {"images": 360, "target_percent": 93.0, "same_answers": 342}
    record["manifest"]["verification"]["accuracy"] = held_out
    assert wording.summary(build_report([write(header(), record)])) == (
        "resnet20 reactnet takes 61.3 kB, pads with −1 where its source pads with zeros, so it "
        "gives other answers, and is 93.00 % accurate."
    )
