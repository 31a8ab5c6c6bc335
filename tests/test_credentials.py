"""Keys from files."""

from pathlib import Path

import pytest

from xiaozhi.settings.credentials import adopt_credentials
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import load_settings


def test_a_file_of_the_folder_counts_as_the_variable_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "MY_KEY").write_text("sk-1\n")
    (tmp_path / "SET_BEFORE").write_text("from the file")
    (tmp_path / "XIAOZHI_METRICS__TOKEN").write_text("look-at-me")
    (tmp_path / "settings.toml").write_text("[server]\n")
    (tmp_path / "..data").mkdir()
    (tmp_path / "FOLDER").mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "SET_BEFORE": "by hand"}
    adopt_credentials(environ)
    assert environ == {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "SET_BEFORE": "by hand",
        "MY_KEY": "sk-1",
        "XIAOZHI_METRICS__TOKEN": "look-at-me",
    }
    settings = load_settings(None, {}, environ).settings
    assert settings.metrics.token.get_secret_value() == "look-at-me"


def test_without_the_folder_nothing_is_read() -> None:
    environ: dict[str, str] = {}
    adopt_credentials(environ)
    assert environ == {}


@pytest.mark.parametrize(
    ("content", "why"), [(b"\xff\xfe", "UTF-8"), (b"k" * 70_000, "no key"), (b"secret\0key", "no key")]
)
def test_what_is_no_key_is_refused_without_showing_it(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "MY_KEY").write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        adopt_credentials({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    (line,) = refused.value.errors
    assert why in line and "MY_KEY" in line and "secret" not in line


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        adopt_credentials({"CREDENTIALS_DIRECTORY": str(tmp_path / "gone")})
    assert "cannot be read" in refused.value.errors[0]
