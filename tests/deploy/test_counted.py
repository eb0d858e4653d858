import pytest

from bibench_deploy.counted import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 layers"), (1, "1 layer"), (2, "2 layers"), (12345, "12,345 layers")]
)
def test_only_one_is_singular(number, text) -> None:
    assert counted(number, "layer") == text


def test_a_plural_without_an_s_is_given() -> None:
    assert [counted(number, "pass", "passes") for number in (1, 2)] == ["1 pass", "2 passes"]
