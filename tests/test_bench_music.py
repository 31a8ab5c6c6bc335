"""The music bench in small: an encoded song is played by voice and stopped in every way."""

from pathlib import Path

import pytest

from bench.music import STOPS_WITHIN_MS, WAYS, Listener, Model, play, stop
from bench.music_material import band, write_track
from tests.house import house, question
from xiaozhi.client.link import device_session
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.turn.machine import ListeningMode


@pytest.mark.parametrize(("kind", "way"), [("mp3", WAYS[0]), ("ogg", WAYS[1]), ("flac", WAYS[2])])
async def test_a_song_fits_the_devices_queue_and_ends_when_told(tmp_path: Path, kind: str, way: str) -> None:
    folder = tmp_path / "music"
    write_track(folder / f"song.{kind}", band(20.0), "Song")
    words, model = SpokenUtterance.encode(question(), 60), Model()
    mode = ListeningMode.REALTIME if way == "speech" else ListeningMode.AUTO
    async with house(tmp_path, tools={"music": {"folder": folder}}) as home, device_session() as session:
        home.chat.answer, home.chat.tool_pieces = model.answer, model.tool_pieces
        async with Listener(1, session, mode) as device:
            await device.connect(home.url)
            played = await play(device, words, 2.0)
            assert played.heard_s >= 2.0 and played.dropped == 0
            assert played.queue_most < 10, "an interruption cannot take back what waits in the device"
            stopped = await stop(device, way, model, words, words, 1.0)
            assert stopped.last_packet_ms < STOPS_WITHIN_MS
            assert (await device.turn(words)).heard, "the device listens again"
