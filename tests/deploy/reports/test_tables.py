from __future__ import annotations

from bibench_deploy.reports import build_report, tables


def test_every_row_has_a_cell_for_each_header(demo):
    for table in tables.all_tables(demo):
        assert {len(row) for row in table.rows} == {len(table.headers)}, table.title


def test_a_noisy_cell_is_flagged_and_its_reason_given(demo):
    table = tables.latency_table(demo)
    (index,) = table.flagged
    assert table.rows[index][8] == "noisy"
    assert table.notes[0].startswith("resnet20 reactnet, 2 threads: noisy, so no result; processes")


def test_a_reason_names_the_device_where_there_are_several(write, header, artifact, cell):
    noisy = {"verdict": "noisy", "reason": "it differs", "interval": 0.07}
    cells = [cell("m", 1, 10.0, device=name, **noisy) for name in ("local", "pi4")]
    notes = tables.latency_table(build_report([write(header(), artifact("m"), *cells)])).notes
    assert [note.partition(", 1 thread")[0].rpartition(" on ")[2] for note in notes[:2]] == [
        "local", "pi4"
    ]  # fmt: skip


def test_a_note_on_a_kernel_names_all_its_models_once(demo):
    notes = tables.latency_table(demo).notes
    assert notes[1] == (
        "resnet20 bnn, resnet20 reactnet, resnet18 reactnet (untrained): "
        "LCE's indirect kernel uses one thread; only the float layers use more."
    )


def test_every_kernel_that_ran_is_shown(demo):
    kernels = {row[0]: row[-1] for row in tables.latency_table(demo).rows}
    assert kernels["resnet20 bnn"] == "indirect + xnnpack"
    assert kernels["resnet20 FP32 twin of bnn"] == "xnnpack"


def test_a_layer_that_is_not_resident_is_flagged(write, header, artifact):
    record = artifact("m")
    record["manifest"]["verification"]["residency"]["resident"] = 17
    table = tables.size_table(build_report([write(header(), record)]))
    assert table.flagged == {0}
    assert table.rows[0][4] == "17 of 18 binary convolutions run as LceBconv2d"


def test_no_findings_is_said_plainly(demo):
    rows = {row[0]: row for row in tables.findings_table(demo).rows}
    assert rows["resnet20 bnn"][-1] == "no findings"
    assert rows["resnet20 reactnet"][1:4] == ("BIB101", "warning", "block3")


def test_an_untrained_model_stands_in_the_accuracy_table_without_a_number(demo):
    assert tables.accuracy_table(demo).rows[-1] == (
        "resnet18 reactnet (untrained)",
        "–",
        "–",
        "–",
        "untrained weights: latency and size only",
    )


def test_the_exported_file_has_an_accuracy_of_its_own(demo):
    rows = {row[0]: row for row in tables.accuracy_table(demo).rows}
    assert rows["resnet20 reactnet"][1:4] == ("98.89 %", "98.89 %", "359 of 360")


def test_random_weights_are_not_blamed_for_their_answers(write, header, artifact):
    record = artifact("m", accuracy=None)
    record["manifest"]["source"]["trained"] = False
    record["manifest"]["verification"]["parity"]["onnx_to_target"]["top1_agreement"] = 0.5
    table = tables.parity_table(build_report([write(header(), record)]))
    assert table.flagged == set()
    assert table.rows[-1][2] == "random weights"


def test_parity_that_was_skipped_is_flagged(write, header, artifact):
    table = tables.parity_table(build_report([write(header(), artifact("m", parity=None))]))
    assert table.flagged == {0}
    assert table.rows[0][1] == "not checked"


def test_speed_up_shows_every_thread_count_and_the_mean_last(demo):
    table = tables.speedup_table(demo)
    assert table.headers[2:5] == ("1 thread", "2 threads", "Each at its fastest")
    assert table.rows[-1][0] == "mean of 3"


def test_unknown_facts_of_a_machine_are_left_out(demo):
    names = [name for name, _ in tables.environment_rows(demo.runs[0])]
    assert "memory" in names
    assert "governor" not in names


def test_storage_is_split_as_the_file_has_it_and_as_theory_has_it(write, header, artifact):
    report = build_report([write(header(), artifact("m", size_bytes=30_000, binary=10))])
    file, theory = tables.storage_table(report).rows
    # Ten layers of 16 × 16 × 3 × 3 weights: 288 B each, in words of 32 for 16 channels.
    assert file[1:] == ("file", "2.88 kB", "15.2 kB", "2.88 kB", "9.00 kB", "30.0 kB")
    assert theory[1:] == ("in theory", "2.88 kB", "0 B", "0 B", "0 B", "2.88 kB")


def test_a_target_that_cannot_tell_its_parts_has_no_row(write, header, artifact):
    model = artifact("m")
    del model["manifest"]["size_by_part"]
    assert tables.storage_table(build_report([write(header(), model)])).rows == ()


def test_clock_and_temperature_have_columns_where_a_device_shows_them(
    demo, write, header, artifact, cell
):
    assert "Clock" not in tables.latency_table(demo).headers
    own = write(
        header(cpus=[4, 5, 6], is_pinned=True),
        artifact("m"),
        *cell("m", 1, 2.0, temperature_c=61.25, clock_mhz=2400),
        *cell("m", 2, 2.0),
    )
    report = build_report([own])
    table = tables.latency_table(report)
    first, second = (dict(zip(table.headers, row, strict=True)) for row in table.rows)
    assert (first["Clock"], first["Hottest"]) == ("2400 MHz", "61.2 °C")
    assert (second["Clock"], second["Hottest"]) == ("–", "–")
    assert ("kept on cores", "4-6") in tables.environment_rows(report.runs[0])
    assert ("governor held at", "performance") in tables.environment_rows(report.runs[0])
