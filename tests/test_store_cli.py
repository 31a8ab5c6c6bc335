"""`xiaozhi devices | agents | history | export | import` as somebody types them."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from xiaozhi.cli import main
from xiaozhi.store import Store
from xiaozhi.store.turns import TurnRecord

DEVICE = "02:00:00:00:00:01"


@pytest.fixture
def xiaozhi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: main([*words, "--set", f"server.data_dir={tmp_path / 'data'}"])


def in_store(folder: Path, heard: str = "") -> str:
    """Put a device with a turn into the store; returns its activation code."""

    async def fill() -> str:
        store = await Store.open(folder / "data" / "xiaozhi.db")
        await store.devices.seen(DEVICE, board="esp32-s3", firmware="2.0")
        past = await store.turns.begin(DEVICE, "", 5)
        trace = {"spans": {"commit": 410.0, "end": None}, "error": ""}
        turn = TurnRecord(store.turns.next_id(), DEVICE, past.conversation, "chef", 1e9, heard, "a", "as", False, trace)
        if heard:
            store.turns.add(turn)
        code = (await store.pending.ask(DEVICE, "client-1")).code
        await store.close()
        return code

    return asyncio.run(fill())


def test_a_device_is_bound_named_blocked_and_removed(
    xiaozhi: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = in_store(tmp_path)
    assert xiaozhi("devices", "bind", "000000" if code != "000000" else "000001") == 1
    assert "no device shows the code" in capsys.readouterr().err
    assert xiaozhi("devices", "bind", code, "--owner", "小明") == 0
    assert xiaozhi("devices", "set", "00:01", "--name", "客厅", "--room", "客厅", "--agent", "大厨") == 0
    assert xiaozhi("devices", "block", "客厅") == 0
    capsys.readouterr()
    assert xiaozhi("devices", "list") == 0
    line = capsys.readouterr().out.splitlines()[1]
    for word in (DEVICE, "客厅", "小明", "chef", "blocked", "esp32-s3"):
        assert word in line
    assert xiaozhi("devices", "show", DEVICE) == 0
    assert xiaozhi("devices", "set", DEVICE, "--agent", "banana") == 1
    assert xiaozhi("devices", "set", DEVICE) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert xiaozhi("devices", "remove", DEVICE) == 1
    assert xiaozhi("devices", "remove", DEVICE, "--yes") == 0
    assert xiaozhi("devices", "show", DEVICE) == 1
    assert "no device is called" in capsys.readouterr().err


def test_a_device_can_be_set_up_before_it_has_ever_called(
    xiaozhi: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert xiaozhi("devices", "allow", "AA:BB:CC:00:00:07") == 0
    assert xiaozhi("devices", "allow", "AA:BB:CC:00:01:07") == 0
    assert xiaozhi("devices", "allow", "kitchen") == 1
    capsys.readouterr()
    assert xiaozhi("devices", "unlist", "aa:bb:cc") == 1
    assert "not one device but 2" in capsys.readouterr().err


def test_an_agent_is_shown_added_edited_assigned_and_removed(
    xiaozhi: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_store(tmp_path)
    assert xiaozhi("agents", "show", "大厨") == 0
    chef = capsys.readouterr().out
    file = tmp_path / "uncle.toml"
    file.write_text(
        chef.replace('name = "chef"', 'name = "uncle"', 1).replace('"大厨", ', '"叔叔", '), encoding="utf-8"
    )
    assert xiaozhi("agents", "add", str(file)) == 0
    assert xiaozhi("agents", "assign", DEVICE, "叔叔") == 0
    capsys.readouterr()
    assert xiaozhi("agents", "list") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["uncle"].split()[1:4] == ["auto", "own", "1"]
    assert "(default)" in lines["xiaozhi"]
    monkeypatch.setenv("EDITOR", "sed -i s/三十年/四十年/")
    assert xiaozhi("agents", "edit", "uncle") == 0
    monkeypatch.setenv("EDITOR", "true")
    assert xiaozhi("agents", "edit", "uncle") == 0
    capsys.readouterr()
    assert xiaozhi("agents", "show", "uncle") == 0
    assert "四十年" in capsys.readouterr().out
    monkeypatch.setenv("EDITOR", "no-such-editor-here")
    assert xiaozhi("agents", "edit", "uncle") == 1
    assert xiaozhi("agents", "remove", "uncle") == 0
    assert xiaozhi("agents", "remove", "chef") == 1
    assert xiaozhi("agents", "show", "uncle") == 1
    file.write_text('name = "x"\nprompt = "{{ moon }}"', encoding="utf-8")
    assert xiaozhi("agents", "add", str(file)) == 1
    assert xiaozhi("agents", "add", str(tmp_path / "nowhere.toml")) == 1
    error = capsys.readouterr().err
    assert "there is no {{ moon }}" in error
    assert "nowhere.toml" in error
    assert "Traceback" not in error


def test_what_was_said_is_shown_and_cleared(
    xiaozhi: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_store(tmp_path, "what is for dinner")
    assert xiaozhi("history", "show", DEVICE, "--trace") == 0
    shown = capsys.readouterr().out
    assert "> what is for dinner" in shown
    assert "commit 410 ms" in shown
    assert xiaozhi("history", "clear", DEVICE, "--yes") == 0
    assert "1 turns" in capsys.readouterr().out
    assert xiaozhi("history", "show", DEVICE) == 0
    assert "nothing is kept" in capsys.readouterr().out


def test_an_export_is_private_and_comes_back_elsewhere(
    xiaozhi: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_store(tmp_path, "remember me")
    file = tmp_path / "backup.jsonl"
    assert xiaozhi("export", str(file)) == 0
    assert file.stat().st_mode & 0o077 == 0
    assert xiaozhi("export", str(file)) == 1
    assert xiaozhi("export", str(file), "--force") == 0
    assert xiaozhi("import", str(file)) == 1
    assert "--replace" in capsys.readouterr().err
    elsewhere = f"server.data_dir={tmp_path / 'elsewhere'}"
    assert main(["import", str(file), "--set", elsewhere]) == 0
    assert main(["history", "show", DEVICE, "--set", elsewhere]) == 0
    assert "remember me" in capsys.readouterr().out
    file.write_bytes(file.read_bytes()[:-20])
    assert main(["import", str(file), "--set", elsewhere, "--replace"]) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert xiaozhi("import", str(tmp_path / "nowhere")) == 1
    assert xiaozhi("export", str(tmp_path / "no" / "folder")) == 1
