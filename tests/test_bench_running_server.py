"""Benches that judge a server in real time, here one in virtual time; and recordings that nothing may learn from."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import echo, endpointing
from bench.endpointing_material import HELD_OUT, Clip, make_utterances, read_index
from bench.room import RoomMicrophone
from bench.running_server import ServerUnfit, hear_all, talk_over
from tests.house import house
from tests.speech import say
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt, to_int16
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.silero import SileroModel, built_in_model

ROOT = Path(__file__).parents[1]


def long_tone(_text: str) -> PcmInt:
    steps = np.arange(DOWNLINK_RATE_HZ * 8) / DOWNLINK_RATE_HZ
    return to_int16((0.3 * np.sin(2760.0 * steps) * (1.0 + np.sin(20.0 * steps)) / 2.0).astype(np.float32))


async def test_turns_of_a_server_are_timed_and_a_long_pause_is_a_cut_off(tmp_path: Path) -> None:
    model = SileroModel(built_in_model(), VadSettings(warm_up=False))
    clip = Clip("spoken", "en", say("please tell me something about the weather in the mountains"))
    plain, paused = make_utterances(model, [clip], [4000])
    async with house(tmp_path) as home:
        whole, cut = await hear_all(home.url, [plain, paused])
    assert not whole.cut_off and not whole.missed
    assert whole.commit_ms is not None and 200.0 < whole.commit_ms < 2500.0
    assert whole.first_audio_ms is not None and whole.first_audio_ms > whole.commit_ms
    assert cut.cut_off


async def test_a_server_that_cannot_be_reached_is_named_in_one_line(tmp_path: Path) -> None:
    model = SileroModel(built_in_model(), VadSettings(warm_up=False))
    (spoken,) = make_utterances(model, [Clip("spoken", "en", say("hello there"))], [])
    with pytest.raises(ServerUnfit, match=r"ws://127\.0\.0\.1:9/"):
        await hear_all("ws://127.0.0.1:9/xiaozhi/v1/", [spoken])


async def test_replies_of_a_server_are_let_sound_and_spoken_over(tmp_path: Path) -> None:
    async with house(tmp_path, "A long answer in one sentence") as home:
        home.speech.sound = long_tone
        found = await talk_over(home.url, RoomMicrophone(None), "a story", [say("what time is it now")], 1)
    assert (found.replies, found.answered) == (1, 0)
    assert (found.said, found.noticed) == (1, 1)
    assert found.heard[0]
    assert 100.0 < found.silent_after_ms[0] < 4000.0


def test_a_folder_needs_an_index_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"need an index\.tsv"):
        read_index(tmp_path)
    (tmp_path / "index.tsv").write_text("file\tkind\na.wav\tread\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="no column language, duration_s, transcript"):
        read_index(tmp_path)
    with pytest.raises(SystemExit, match="no column"):
        echo.said_over([tmp_path], 3)


def test_settings_are_not_chosen_by_recordings_that_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / HELD_OUT).touch()
    monkeypatch.setattr(sys, "argv", ["endpointing", str(tmp_path), "--set", "neutral_ms=500"])
    with pytest.raises(SystemExit, match="held out"):
        endpointing.main()


def test_what_is_trained_reads_no_recordings() -> None:
    """It must not even be able to: nothing that reads sound or an index of it is imported."""
    readers = {"wave", "bench.vad_quality", "bench.endpointing_material", "bench.echo_cancelling", "xiaozhi.audio"}
    for path in (ROOT / "bench" / "completeness").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
            name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
        }
        assert not [name for name in imported if any(f"{name}.".startswith(f"{each}.") for each in readers)], path
