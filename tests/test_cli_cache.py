"""`xiaozhi cache`: read and cleared without a server."""

from pathlib import Path

import pytest

from xiaozhi.cache.disk_file import FILE_NAME, DiskFile
from xiaozhi.cli import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def filled(data: Path) -> None:
    file = DiskFile(data / FILE_NAME)
    file.write(b"one", bytes(2 * 1024 * 1024), 4e9, 1.0)
    file.write(b"two", b"x", 5.0, 2.0)
    file.close()


def test_nothing_is_kept_yet(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "stats"]) == 0
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.count("nothing is kept") == 2
    assert not data.exists(), "looking makes no file"


def test_what_is_kept_is_told_and_forgotten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(data)
    assert main(["cache", "stats"]) == 0
    told = capsys.readouterr().out
    assert "entries         2" in told and "2.0 MB of 256 MB" in told and "expired         1" in told
    assert main(["cache", "clear"]) == 0
    assert "2 entries forgotten" in capsys.readouterr().out
    assert main(["cache", "stats"]) == 0
    assert "entries         0" in capsys.readouterr().out
    assert (data / FILE_NAME).stat().st_size < 100_000


def test_a_damaged_file_is_named_and_can_be_cleared(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.mkdir()
    (data / FILE_NAME).write_bytes(b"rubbish" * 1000)
    assert main(["cache", "stats"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert (data / FILE_NAME).read_bytes().startswith(b"rubbish"), "stats changes nothing"
    assert main(["cache", "clear"]) == 0
    assert main(["cache", "stats"]) == 0
    assert not (data / f"{FILE_NAME}.damaged").exists()


def test_a_cache_that_is_off_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "stats", "--set", "cache.disk_mb=0"]) == 0
    assert "not kept on disk" in capsys.readouterr().out


def test_wrong_usage_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "burn"]) == 2
    assert "stats" in capsys.readouterr().err
