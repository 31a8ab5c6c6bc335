"""Files with secrets: who may read them, and what is left when writing fails."""

import errno
import logging
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.access.own_token import PUSH_TOKEN, made_token, read_token
from xiaozhi.access.token_keys import keys_file, load_keys
from xiaozhi.console.password import hash_of, read_hash, write_hash
from xiaozhi.store import private_file

NOW_S = 1_000_000.0


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@given(content=st.binary(max_size=2000))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("private") / "secret"
    private_file.write(path, content)
    assert private_file.read(path) == content


def test_there_may_be_no_file_and_no_folder_yet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data" / "secret"
    assert private_file.read(path) is None
    private_file.write(path, b"first")
    assert private_file.read(path) == b"first"


def test_only_its_owner_may_read_it_whatever_the_umask_and_the_rights_before(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        private_file.write(path, b"new")
    finally:
        os.umask(before)
    assert rights(path) == 0o600 and path.read_bytes() == b"new"


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x" * (private_file.MAX_BYTES + 1))
    assert private_file.read(path, max_bytes=10) == b"x" * 10
    assert len(private_file.read(path) or b"") == private_file.MAX_BYTES


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_when_the_disk_is_full_the_file_is_as_it_was_and_nothing_lies_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "secret"
    private_file.write(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(OSError, match="No space left"):
        private_file.write(path, b"new")
    assert private_file.read(path) == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "secret", []
    private_file.write(path, b"old")
    flush = os.fsync

    def look(descriptor: int) -> None:
        flush(descriptor)
        seen.append((path.read_bytes(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", look)
    private_file.write(path, b"newer")
    assert seen == [(b"old", 5)]


@pytest.mark.parametrize("wide", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_rights_that_are_too_wide_are_tightened_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wide: int
) -> None:
    path = tmp_path / "secret"
    private_file.write(path, b"words")
    path.chmod(wide)
    with caplog.at_level(logging.WARNING):
        private_file.tighten(path)
        private_file.tighten(path)
    assert rights(path) == 0o600 and path.read_bytes() == b"words"
    assert [record.message for record in caplog.records] == [
        f"{path} could be read by others; its rights are tightened"
    ]


def test_narrower_rights_are_left_alone_and_a_file_that_has_gone_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    private_file.write(path, b"words")
    path.chmod(0o400)
    private_file.tighten(path)
    assert rights(path) == 0o400
    private_file.tighten(tmp_path / "gone")


def test_a_folder_in_its_place_is_an_error_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.mkdir()
    with pytest.raises(OSError, match="secret"):
        private_file.read(path)
    with pytest.raises(OSError, match="secret"):
        private_file.write(path, b"words")
    assert list(tmp_path.iterdir()) == [path]


def test_token_keys_own_tokens_and_the_password_are_private_files(tmp_path: Path) -> None:
    ring, token, kept = load_keys(tmp_path, NOW_S), made_token(tmp_path, PUSH_TOKEN), hash_of("open sesame", cost=16)
    write_hash(tmp_path / "password", kept)
    paths = [keys_file(tmp_path), tmp_path / PUSH_TOKEN, tmp_path / "password"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for path in paths:
        assert rights(path) == 0o600
        path.chmod(0o644)
    assert load_keys(tmp_path, NOW_S) == ring
    assert made_token(tmp_path, PUSH_TOKEN) == token
    assert read_hash(tmp_path / "password") == kept
    assert [rights(path) for path in paths] == [0o600] * 3


def test_damaged_keys_are_set_aside_out_of_the_sight_of_others(tmp_path: Path) -> None:
    keys_file(tmp_path).write_bytes(b"half of a key")
    keys_file(tmp_path).chmod(0o644)
    load_keys(tmp_path, NOW_S)
    assert rights(keys_file(tmp_path).with_suffix(".damaged")) == 0o600


def test_a_token_that_was_only_half_written_is_made_anew(tmp_path: Path) -> None:
    for content in (b"", b"half", b"\xff" * 40):
        (tmp_path / PUSH_TOKEN).write_bytes(content)
        token = made_token(tmp_path, PUSH_TOKEN)
        assert len(token) >= 32 and read_token(tmp_path, PUSH_TOKEN) == token
        assert rights(tmp_path / PUSH_TOKEN) == 0o600
