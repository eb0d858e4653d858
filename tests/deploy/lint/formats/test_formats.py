import pytest

from bibench_deploy.errors import UnknownNameError
from bibench_deploy.lint import formats
from bibench_deploy.lint.runner import LintResult


def test_text_and_json_are_there() -> None:
    assert {"json", "text"} <= set(formats.names())


@pytest.mark.parametrize("name", formats.names())
def test_every_format_names_source_and_target_and_ends_its_last_line(name) -> None:
    text = formats.load(name)(LintResult("lce", 0, ()), "a source")
    assert "a source" in text
    assert "lce" in text
    assert text.endswith("\n")


def test_an_unknown_format_lists_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as raised:
        formats.load("jsn")
    assert 'unknown lint format "jsn" (did you mean "json"?)' in str(raised.value)
    assert raised.value.valid == tuple(formats.names())
