import inspect

import pytest

from bibench_deploy import errors
from bibench_deploy.errors import (
    DeviceError,
    LoweringError,
    MissingExtraError,
    UnknownNameError,
)

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, Exception)
}


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    drawn: list[str] = []
    for line in errors.__doc__.splitlines():
        if "── " not in line:
            continue
        stem, _, text = line.partition("── ")
        name = text.split()[0]
        # A line that is drawn deeper belongs to the name before it.
        parent = errors.DeployError if len(stem) < 8 else CLASSES[drawn[-1]]
        assert CLASSES[name].__bases__ == (parent,)
        drawn.append(name)
    assert drawn == [name for name in CLASSES if name != "DeployError"]


def test_an_unknown_name_lists_the_valid_ones_and_the_nearest() -> None:
    error = UnknownNameError("colour", "bleu", ["blue", "red"])
    assert str(error) == 'unknown colour "bleu" (did you mean "blue"?); one of: blue, red'
    assert (error.kind, error.name, error.valid) == ("colour", "bleu", ("blue", "red"))


def test_a_name_like_no_other_has_no_nearest() -> None:
    assert "did you mean" not in str(UnknownNameError("colour", "xyz", ["blue", "red"]))


def test_a_lowering_error_holds_every_reason() -> None:
    error = LoweringError("lce", ["a: too wide", "b: too deep"])
    assert str(error) == "target lce cannot hold this model: (1) a: too wide; (2) b: too deep"
    assert (error.target, error.reasons) == ("lce", ("a: too wide", "b: too deep"))


def test_a_device_error_keeps_exit_code_and_stderr() -> None:
    error = DeviceError("it failed", exit_code=3, stderr="no room")
    assert (str(error), error.exit_code, error.stderr) == ("it failed", 3, "no room")
    assert DeviceError("unreachable").exit_code is None


def test_a_missing_extra_says_what_to_run() -> None:
    assert str(MissingExtraError("training", "torch", "train")) == (
        "training needs torch, which is not installed; "
        'run in a clone of bibench: python -m pip install ".[train]"'
    )


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_says_what_it_is(name) -> None:
    assert CLASSES[name].__doc__


def test_nodes_that_stand_in_the_way_for_one_reason_are_named_together() -> None:
    error = LoweringError("lce", ["a: too wide: 5", "b: too deep", "c: too wide: 5", "no input"])
    assert str(error) == (
        "target lce cannot hold this model: (1) a, c: too wide: 5; (2) b: too deep; (3) no input"
    )
    assert error.reasons == ("a: too wide: 5", "b: too deep", "c: too wide: 5", "no input")


def test_a_version_that_does_not_do_is_told_beside_the_one_that_does() -> None:
    error = MissingExtraError("export to LCE", "numpy below 2", "lce", found="2.1.0")
    assert str(error) == (
        "export to LCE needs numpy below 2, but 2.1.0 is installed; "
        'run in a clone of bibench: python -m pip install ".[lce]"'
    )


def test_what_bibench_always_needs_comes_with_no_extra() -> None:
    error = MissingExtraError("this command", "onnx", "")
    assert str(error).endswith("run in a clone of bibench: python -m pip install .")
