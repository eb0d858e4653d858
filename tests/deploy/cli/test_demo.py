import pytest

from bibench_deploy.cli import demo as module
from bibench_deploy.cli.demo import MARK, untrained_resnet18


@pytest.mark.parametrize("content", ["a file", "a folder with a file", "a plain file"])
def test_somebodys_files_are_never_replaced(content, tmp_path, bibench, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if content == "a plain file":
        (tmp_path / "demo").write_text("thesis")
    else:
        (tmp_path / "demo" / "sub").mkdir(parents=True)
        (tmp_path / "demo" / "sub" / "thesis").write_text("thesis")
    result = bibench("demo")
    assert result.exit_code == 2
    assert "demo exists and no demo made it; choose another --out" in result.stderr
    (left,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert left.read_text() == "thesis"


def test_an_earlier_demo_is_replaced(tmp_path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / MARK).touch()
    module._make_room(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MARK]


def test_thread_counts_are_checked_before_anything_is_trained(tmp_path, bibench) -> None:
    result = bibench("demo", "--out", tmp_path / "demo", "--threads", "one")
    assert result.exit_code == 2
    assert not (tmp_path / "demo").exists()


def test_the_large_network_is_untrained_and_the_same_each_time() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = untrained_resnet18()
    assert torch.equal(torch.rand(1), expected)
    assert first.facts["trained"] is False
    assert first.facts["accuracy"] is None
    assert (first.name, first.input_shape) == ("resnet18-reactnet-untrained", (3, 224, 224))


def test_without_the_library_the_demo_shows_lce_alone(monkeypatch, capsys) -> None:
    from bibench_deploy.targets.native import shared_library

    assert module._engines() == ["lce", "native"]
    monkeypatch.setattr(shared_library, "NAME", "libmissing.so")
    assert module._engines() == ["lce"]
    assert "The demo goes on without it" in capsys.readouterr().err
