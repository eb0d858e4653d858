from __future__ import annotations

import pytest

from bibench_deploy.errors import ResultsError
from bibench_deploy.reports import build_report
from bibench_deploy.reports.tables import published_table


def by_title(report):
    return {model.title: model for model in report.models}


def test_speed_up_is_fp32_over_binary_at_the_same_thread_count(demo):
    speedups = {s.threads: s for s in by_title(demo)["resnet18 reactnet"].speedups}
    assert speedups[1].ratio == pytest.approx(36.2 / 24.1)
    assert speedups[2].ratio == pytest.approx(21.0 / 19.4)


def test_each_side_is_compared_at_its_own_fastest_thread_count(write, header, artifact, cell):
    path = write(
        header(),
        artifact("twin", role="fp32_twin", binary=0),
        artifact("model", twin="twin"),
        cell("model", 1, 2.0),
        cell("model", 2, 3.0),
        cell("twin", 1, 8.0),
        cell("twin", 2, 5.0),
    )
    (fastest,) = build_report([path]).headline.fastest
    assert (fastest.threads, fastest.twin_threads) == (1, 2)
    assert fastest.ratio == 2.5


def test_a_noisy_cell_is_not_the_fastest_while_a_stable_one_is_there(demo):
    (fastest,) = by_title(demo)["resnet20 reactnet"].fastest
    assert (fastest.threads, fastest.is_noisy) == (1, False)


def test_a_ratio_with_a_noisy_side_is_noisy_and_so_is_the_mean(write, header, artifact, cell):
    path = write(
        header(),
        artifact("twin", role="fp32_twin", binary=0),
        artifact("model", twin="twin"),
        cell("model", 1, 2.0),
        cell("twin", 1, 8.0, verdict="noisy"),
    )
    report = build_report([path])
    assert report.headline.speedups[0].is_noisy
    assert report.headline.fastest[0].is_noisy
    assert report.mean_speedups[0].is_noisy


def test_means_are_over_models_and_not_over_cells(demo):
    (mean,) = demo.mean_speedups
    expected = [1.80 / 3.12, 1.92 / 3.61, 21.0 / 19.4]
    assert mean.ratio == pytest.approx(sum(expected) / 3)
    assert mean.models == 3
    sizes = [1_094_400 / 59_000, 1_094_400 / 61_312, 46_800_000 / 4_170_000]
    assert demo.mean_size_ratio == pytest.approx(sum(sizes) / 3)


def test_the_hardware_track_has_a_score_for_each_algorithm(demo):
    scores = {(own.device, own.algorithm): own for own in demo.scores}
    assert scores.keys() == {("local", "bnn"), ("local", "reactnet")}
    sizes = (1_094_400 / 61_312 + 46_800_000 / 4_170_000) / 2
    found = scores["local", "reactnet"]
    assert found.compression == pytest.approx(sizes)
    assert found.speed_up == pytest.approx((1.92 / 3.61 + 21.0 / 19.4) / 2)
    assert found.overall == pytest.approx(((found.speed_up**2 + sizes**2) / 2) ** 0.5)


def test_published_figures_of_the_same_chip_stand_beside_measured_ones(
    write, header, artifact, cell
):
    path = write(
        header(environment={"machine": "aarch64"}),
        artifact("twin", role="fp32_twin", architecture="resnet18", binary=0),
        artifact("model", architecture="resnet18", twin="twin"),
        cell("model", 1, 80.0, device="pi4"),
        cell("model", 3, 60.0, device="pi4"),
        cell("twin", 1, 440.0, device="pi4"),
        cell("twin", 3, 300.0, device="pi4"),
    )
    report = build_report([path])
    (published,) = report.headline.published
    assert published.binary[1].ms == 82.38
    assert [(own.device, own.engine, own.algorithm) for own in report.published] == [
        ("pi4", "lce", "reactnet")
    ]
    assert [row.overall for row in report.printed] == [11.51]
    # The paper has no 3 threads, so there is nothing to stand beside them.
    (row,) = published_table(report).rows
    assert row[1:5] == ("Raspberry Pi 4B", "1", "440 ms", "449 ms")


def test_an_unpublished_device_has_nothing_beside_it(demo):
    assert demo.published == ()
    assert published_table(demo).rows == ()


def test_an_emulated_device_is_left_out_of_the_hardware_track_and_that_is_said(
    write, header, artifact, cell
):
    path = write(
        header(environment={"machine": "aarch64", "is_emulated": True}),
        artifact("twin", role="fp32_twin", binary=0),
        artifact("model", twin="twin"),
        cell("model", 1, 2.0, device="board"),
        cell("twin", 1, 8.0, device="board"),
    )
    report = build_report([path])
    assert report.scores == ()
    assert "board is emulated" in report.problems[0]


def test_families_are_told_apart_by_architecture_and_input_size(demo):
    assert [family.title for family in demo.families] == ["resnet20, 32×32", "resnet18, 224×224"]


def test_the_same_architecture_at_two_sizes_gets_two_names(write, header, artifact):
    path = write(header(), artifact("small"), artifact("large", image=224))
    assert set(by_title(build_report([path]))) == {
        "resnet20 32×32 reactnet",
        "resnet20 224×224 reactnet",
    }


def test_models_are_ordered_fp32_first_and_each_twin_behind_its_model(demo):
    assert [model.label for model in demo.families[0].models] == [
        "fp32",
        "bnn",
        "FP32 twin of bnn",
        "reactnet",
        "FP32 twin of reactnet",
    ]


def test_an_untrained_model_has_no_accuracy_even_if_its_manifest_states_one(
    write, header, artifact
):
    report = build_report([write(header(), artifact("m", accuracy=10.0, trained=False))])
    assert report.headline.is_untrained
    assert report.headline.accuracy is None
    assert report.accuracy == {}


def test_the_twin_of_a_trained_model_is_not_called_untrained(demo):
    assert not by_title(demo)["resnet20 FP32 twin of reactnet"].is_untrained
    assert by_title(demo)["resnet18 FP32 twin"].is_untrained


def test_accuracy_is_by_algorithm(demo):
    assert demo.accuracy == {"fp32": 98.06, "bnn": 96.94, "reactnet": 98.89}


def test_accuracy_is_by_model_where_an_algorithm_appears_twice(write, header, artifact):
    path = write(
        header(),
        artifact("a", accuracy=90.0),
        artifact("b", accuracy=80.0, architecture="resnet18"),
        artifact("c", accuracy=95.0, algorithm="bnn"),
    )
    assert build_report([path]).accuracy == {
        "resnet20 reactnet": 90.0,
        "resnet18 reactnet": 80.0,
        "bnn": 95.0,
    }


def test_the_headline_is_the_most_accurate_binarized_model(demo):
    assert demo.headline.title == "resnet20 reactnet"
    assert demo.headline.fp32_accuracy == 98.06


def test_fp32_accuracy_of_another_data_set_is_no_comparison(write, header, artifact):
    other = artifact("fp32", algorithm="fp32", accuracy=99.0, binary=0)
    other["manifest"]["source"]["dataset"] = "cifar10"
    report = build_report([write(header(), other, artifact("m", accuracy=98.0))])
    assert report.headline.fp32_accuracy is None


def test_the_run_that_started_last_counts(write, header, artifact, cell):
    new = write(
        header(started_at="2026-02-01T00:00:00+00:00", run="new"),
        artifact("m"),
        cell("m", 1, 2.0),
        name="new.jsonl",
    )
    old = write(
        header(started_at="2026-01-01T00:00:00+00:00", run="old"),
        artifact("m"),
        cell("m", 1, 9.0),
        cell("m", 4, 1.0),
        name="old.jsonl",
    )
    report = build_report([new, old])
    assert [run.name for run in report.runs] == ["old", "new"]
    assert [(c.key.threads, c.latency_ms.p50) for c in report.headline.cells] == [(1, 2.0)]


def test_devices_stand_side_by_side(write, header, artifact, cell):
    first = write(header(), artifact("m"), cell("m", 1, 2.0), name="a.jsonl")
    second = write(header(), artifact("m"), cell("m", 1, 4.0, device="board"), name="b.jsonl")
    report = build_report([first, second])
    assert set(report.devices) == {"local", "board"}
    assert len(report.headline.cells) == 2


def test_models_from_onnx_files_stand_under_their_file_name(write, header, artifact, cell):
    nameless = {"architecture": None, "algorithm": None, "trained": None}
    path = write(
        header(),
        artifact("twin", role="fp32_twin", binary=0, name="net", **nameless),
        artifact("m", twin="twin", name="net", **nameless),
        cell("m", 1, 2.0),
        cell("twin", 1, 4.0),
    )
    report = build_report([path])
    assert [model.title for model in report.models] == ["net", "net FP32 twin"]
    assert report.headline.speedups[0].ratio == 2.0


@pytest.mark.parametrize(
    ("machine", "is_host_check"),
    [("x86_64", True), ("AMD64", True), ("aarch64", False), ("armv7l", False), (None, False)],
)
def test_only_x86_is_a_host_check(write, header, artifact, machine, is_host_check):
    report = build_report([write(header(environment={"machine": machine}), artifact("m"))])
    assert report.is_host_check is is_host_check


def test_parity_is_the_worse_of_its_two_steps(write, header, artifact):
    parity = {
        "inputs": 8,
        "seed": 0,
        "torch_to_onnx": {"max_abs_error": 0.5, "top1_agreement": 1.0},
        "onnx_to_target": {
            "max_abs_error": 0.25,
            "top1_agreement": 0.875,
            "flip_rate": 0.01,
            "unexplained_flips": 0,
        },
    }
    found = build_report([write(header(), artifact("m", parity=parity))]).headline.parity
    assert (found.max_abs_error, found.top1_agreement, found.flip_rate) == (0.5, 0.875, 0.01)
    assert not found.is_agreed


def test_an_unexplained_flip_is_no_agreement(write, header, artifact):
    target = {
        "max_abs_error": 0.0,
        "top1_agreement": 1.0,
        "flip_rate": 0.0,
        "unexplained_flips": 1,
    }
    parity = {"inputs": 8, "seed": 0, "torch_to_onnx": None, "onnx_to_target": target}
    found = build_report([write(header(), artifact("m", parity=parity))]).headline.parity
    assert not found.is_agreed


def test_an_interrupted_run_is_a_problem_to_show(write, header, artifact, cell):
    planned = [{"artifact": "m", "device": "local", "threads": 1, "blocks": 5}]
    report = build_report([write(header(planned=planned), artifact("m"), cell("m", 1, 2.0))])
    assert "interrupted" in report.problems[0]


def test_no_artifact_is_refused(write, header):
    with pytest.raises(ResultsError, match=r"run\.jsonl: holds no artifact"):
        build_report([write(header())])


def test_a_manifest_that_lacks_a_field_is_refused_with_its_name(write, header, artifact):
    record = artifact("m")
    del record["manifest"]["source"]
    with pytest.raises(ResultsError, match="lacks 'source'"):
        build_report([write(header(), record)])


def test_no_files_is_a_wrong_call():
    with pytest.raises(ValueError, match="at least one"):
        build_report([])


def test_a_later_run_on_the_same_device_takes_the_place_of_an_earlier_series(
    write, header, artifact, cell
):
    def sweep(threads, **head):
        block, _ = cell("m", threads, 10.0)
        return [header(**head), artifact("m"), *(block | {"block": n} for n in range(20))]

    first = write(*sweep(1, started_at="2026-01-01T00:00:00Z"), name="a.jsonl")
    second = write(*sweep(2, started_at="2026-01-02T00:00:00Z"), name="b.jsonl")
    series = build_report([first, second]).headline.series
    assert [(key.device, key.threads) for key in series] == [("local", 2)]


@pytest.mark.parametrize(
    "damage",
    [
        {"verification": {"parity": {"onnx_to_target": {"flip_rate": {"a": 1}}}}},
        {"verification": {"parity": {"inputs": "8"}}},
        {"verification": {"residency": {"intended": 1, "resident": []}}},
        {"verification": {"accuracy": {"images": 8, "target_percent": "all"}}},
        {"layers": [{"intended_bits": 1, "weight_shape": [8, 1e308]}]},
        {"layers": [{"intended_bits": 1, "weight_shape": [1 << 40, 1 << 40]}]},
    ],
)
def test_a_manifest_with_something_else_than_numbers_names_the_file(
    write, header, artifact, damage
):
    model = artifact("m")
    model["manifest"] |= damage
    with pytest.raises(ResultsError, match=r"jsonl: a manifest is not as"):
        build_report([write(header(), model)])


def test_a_damaged_split_of_the_size_names_the_file(write, header, artifact):
    model = artifact("m")
    model["manifest"]["size_by_part"] = {"binary_weights": "many"}
    with pytest.raises(ResultsError, match="a manifest is not as"):
        build_report([write(header(), model)])
