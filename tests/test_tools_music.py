"""Music from a folder: found by voice, streamed, stopped at once."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.events import ToolCall
from xiaozhi.settings import ToolsSettings
from xiaozhi.settings.tools import MusicSettings
from xiaozhi.tools.built_in.music import MusicBox, Track, scan, search
from xiaozhi.tools.music_stream import FileDecoder
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.tools.tool import ToolContext


def write(path: Path, seconds: float, rate_hz: int = 44_100, **tags: str) -> Path:
    """A tone as an MP3 or FLAC file with tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata.update(tags)
        stream = container.add_stream("libmp3lame" if path.suffix == ".mp3" else "flac", rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "stereo"
        stream.format = "s16p" if path.suffix == ".mp3" else "s16"
        at = 0
        while at < seconds * rate_hz:
            count = min(1152, int(seconds * rate_hz) - at)
            tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(at, at + count) / rate_hz)).astype(np.int16)
            packed = np.stack([tone, tone]) if path.suffix == ".mp3" else np.repeat(tone, 2)[None, :]
            frame = av.AudioFrame.from_ndarray(packed, format=stream.format.name, layout="stereo")
            frame.sample_rate, frame.pts = rate_hz, at
            container.mux(stream.encode(frame))
            at += count
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("music")
    write(root / "a" / "01 ignored.mp3", 3.0, title="月亮代表我的心", artist="邓丽君", album="精选")
    write(root / "a" / "02.flac", 1.0, title="甜蜜蜜", artist="邓丽君", album="精选")
    write(root / "Blue Band - Long Way Home (Live).mp3", 1.0)
    (root / "broken.mp3").write_bytes(b"\x00" * 4000)
    (root / "notes.txt").write_text("no music")
    return root


@pytest.fixture
async def box(folder: Path) -> AsyncIterator[MusicBox]:
    made = MusicBox(folder, MusicSettings(folder=folder))
    yield made
    await made.close()


def test_files_are_known_by_tags_or_by_their_names(folder: Path) -> None:
    tracks = scan(folder, 100)
    assert [(each.artist, each.title) for each in tracks] == [
        ("Blue Band", "Long Way Home (Live)"),
        ("", "broken"),
        ("邓丽君", "月亮代表我的心"),
        ("邓丽君", "甜蜜蜜"),
    ]
    assert next(each for each in tracks if each.artist == "邓丽君").duration_s == pytest.approx(3.0, abs=1.5)
    again = scan(folder, 100, tracks)
    assert all(any(new is old for old in tracks) for new in again)
    assert len(scan(folder, 2)) == 2


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("月亮代表我的心", "月亮代表我的心"),
        ("月亮代表", "月亮代表我的心"),
        ("邓丽君的甜蜜蜜", "甜蜜蜜"),
        ("月亮带表我的心", "月亮代表我的心"),
        ("long way home", "Long Way Home (Live)"),
        ("Long weigh home!", "Long Way Home (Live)"),
        ("blue band", "Long Way Home (Live)"),
    ],
)
def test_a_title_is_found_also_when_it_is_misheard(folder: Path, query: str, title: str) -> None:
    assert search(scan(folder, 100), query)[0].title == title


def test_what_is_not_there_is_not_found(folder: Path) -> None:
    tracks = scan(folder, 100)
    assert search(tracks, "十面埋伏") == [] and search(tracks, "!!") == []


async def test_a_track_is_decoded_to_the_rate_of_the_house_within_bounds(box: MusicBox) -> None:
    tracks = await box.find("月亮代表我的心")
    pieces = [piece async for piece in box.play(tracks[:1])]
    pcm = np.concatenate(pieces)
    assert pcm.dtype == np.int16
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(3.0, abs=0.15)
    assert np.abs(pcm.astype(int)).max() > 4000
    assert max(map(len, pieces)) <= DOWNLINK_RATE_HZ


async def test_broken_files_are_passed_over_and_nothing_but_broken_ones_is_an_error(
    box: MusicBox, folder: Path
) -> None:
    tracks = {each.path.name: each for each in await box.tracks()}
    playing = box.play([tracks["broken.mp3"], Track(folder / "gone.mp3", "gone"), tracks["02.flac"]])
    assert sum([len(piece) async for piece in playing]) / DOWNLINK_RATE_HZ == pytest.approx(1.0, abs=0.1)
    with pytest.raises(DecodeError):
        async for _ in box.play([tracks["broken.mp3"]]):
            pass


async def test_stopping_ends_the_decoding_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp3", 60.0)
    box = MusicBox(tmp_path, MusicSettings(folder=tmp_path, ahead_s=0.5))
    playing = box.play([Track(path, "long")])
    heard = len(await anext(playing))
    await playing.aclose()
    assert heard > 0
    assert [task for task in asyncio.all_tasks() if task.get_name() == "music"] == []
    with pytest.raises(StopAsyncIteration):
        await anext(playing)
    await box.close()


async def test_music_is_played_by_voice(folder: Path) -> None:
    house = SharedTools(ToolsSettings(music=MusicSettings(folder=folder)))
    tools = house.toolbox(ToolContext(language="zh"))

    async def call(**arguments: object) -> object:
        (answer,) = await tools.run([ToolCall("1", "play_music", json.dumps(arguments))])
        return answer.result

    tools.begin_turn("放首歌")
    by_title, by_artist, unknown = await asyncio.gather(
        call(query="甜蜜蜜"), call(query="邓丽君的歌"), call(query="十面埋伏")
    )
    tools.begin_turn("再来")
    (found,) = await tools.run([ToolCall("1", "find_music", "{}")])
    assert by_title.text == "正在播放：邓丽君 - 甜蜜蜜"  # type: ignore[attr-defined]  # a ToolResult
    assert by_artist.text.startswith("正在播放：邓丽君")  # type: ignore[attr-defined]  # as above
    assert unknown.failed and unknown.audio is None  # type: ignore[attr-defined]  # as above
    assert len(found.result.text.splitlines()) == 4
    sound = by_artist.audio()  # type: ignore[attr-defined]  # as above
    total = sum([len(piece) async for piece in sound]) / DOWNLINK_RATE_HZ
    assert total == pytest.approx(4.0, abs=0.3)
    await house.close()


async def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    house = SharedTools(ToolsSettings(music=MusicSettings(folder=tmp_path / "gone")))
    (answer,) = await house.toolbox(ToolContext()).run([ToolCall("1", "play_music", "{}")])
    assert answer.result.text == "音乐文件夹是空的。"
    await house.close()


@pytest.mark.parametrize("words", ["ffconcat version 1.0\nfile other.wav\n", "#EXTM3U\n#EXTINF:1,\nother.wav\n"])
def test_a_file_that_lists_other_files_is_no_music(tmp_path: Path, words: str) -> None:
    write(tmp_path / "other.flac", 0.2).rename(tmp_path / "other.wav")
    (tmp_path / "list.mp3").write_text(words)
    assert FileDecoder(tmp_path / "other.wav").next_piece() is not None
    with pytest.raises(DecodeError):
        FileDecoder(tmp_path / "list.mp3").next_piece()


def test_a_pipe_in_the_folder_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "song.mp3")
    assert [track.title for track in scan(tmp_path, 10)] == ["song"]
    with pytest.raises(DecodeError):
        FileDecoder(tmp_path / "song.mp3").next_piece()
