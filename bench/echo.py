"""Music that leaks from a device's loudspeaker into its microphone, in the mode in which that is always open.

Nobody speaks: how often does the server take the music for a user, and pause or stop it? Then people do speak over
it: are they heard, and are they understood as well as without music? The echo goes through a room (a decaying
response of 0.25 s) and is so many dB quieter than what is played; a board with echo cancellation reaches 30 to 40 dB.

RECORDINGS are WAV files or a folder with an `index.tsv`, of which the English sentences are taken. Shares are in
brackets where 95 of 100 such samples would have them (Wilson).

With `--server URL` a server that runs is judged in real time, by replies instead of music: a device that leaves its
echo to the server asks `--question` in writing, is silent, then says the sentences over further answers. The canceller
alone, in audio time: `python -m bench.echo_cancelling`.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from bench.endpointing_material import LONGEST_CLIP_S, SENTENCES, read_index
from bench.first_word import settings_toml
from bench.harness import ServerProcess, server_process
from bench.music import AGREED, Model
from bench.music_material import band, with_voices, write_track
from bench.room import RoomMicrophone
from bench.running_server import ServerUnfit, talk_over
from bench.standins.speech import SpeechStandIn
from bench.stats import share, spread, table
from bench.user import gaps_ms
from bench.word_errors import edits, words
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.audio.wav import read_wav
from xiaozhi.client.device import Device
from xiaozhi.client.link import device_session
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.speaker import Playback
from xiaozhi.turn.machine import ListeningMode

_FRAME_MS: Final = 60
# A person in front of the device, as microphones of boards deliver it.
_TALKER_RMS: Final = 10.0 ** (-26.0 / 20.0)
_SPEAKS_AFTER_S: Final = 3.0


@dataclass(slots=True)
class Alone:
    """Music without anybody speaking: seconds heard, pauses over 60 ms in it, and times it was stopped."""

    heard_s: float = 0.0
    pauses: int = 0
    paused_ms: float = 0.0
    stopped: int = 0


@dataclass(slots=True)
class Spoken:
    """People over music.

    Attributes:
        said: sentences.
        noticed: after how many of them the music stopped.
        after_ms: since the first sample of the sentence.
        wrong, words: understood otherwise than without music.
        texts: what was understood.
    """

    said: int
    noticed: int
    after_ms: list[float]
    wrong: int
    words: int
    texts: list[str]


class Listener:
    """One device that plays music and hears it."""

    def __init__(self, number: int, session: aiohttp.ClientSession, echo_db: float | None) -> None:
        self.ear = RoomMicrophone(echo_db)
        self.device = Device(
            ClientIdentity.numbered(number),
            decode_reply=False,
            session=session,
            mode=ListeningMode.REALTIME,
            microphone=self.ear,
        )
        self.ear.hears(self.device.manners.speaker)

    async def music(self) -> "asyncio.Task[object]":
        """Ask for music in writing; returns when it sounds. The task ends when its reply is over."""
        device = self.device
        device.begin_turn()
        turn = asyncio.create_task(device.turn_text("play some music", reply_timeout_s=3600.0))
        await device.until(lambda: device.manners.speaker.playback.heard_ms > 500.0, 30.0)
        return turn

    def stopped(self, since_ms: float) -> float | None:
        """When the server ended the music, if it has."""
        return next((at for at, said in self.device.received if at > since_ms and said.get("state") == "stop"), None)

    def agreed(self, since_ms: float) -> bool:
        """Whether the model has answered what was said."""
        return any(at > since_ms and said.get("text") == AGREED for at, said in self.device.received)

    async def alone(self, seconds: float) -> Alone:
        """Let music play for so long, again when it was stopped."""
        device, found = self.device, Alone()
        while found.heard_s < seconds:
            turn = await self.music()
            began_ms, playback = device.now_ms(), device.manners.speaker.playback
            wanted_ms = (seconds - found.heard_s) * 1000.0
            done = partial(self._heard, playback, wanted_ms, began_ms)
            await device.until(done, 3600.0)
            if self.stopped(began_ms) is None:
                device.abort()
            else:
                found.stopped += 1
            silences = [gap for gap in gaps_ms(playback.heard) if gap > _FRAME_MS]
            found.heard_s += playback.heard_ms / 1000.0
            found.pauses += len(silences)
            found.paused_ms += sum(silences)
            await self.over(turn)
        return found

    def _heard(self, playback: Playback, wanted_ms: float, since_ms: float) -> bool:
        return self.stopped(since_ms) is not None or playback.heard_ms >= wanted_ms

    async def spoken(self, sentences: Sequence[PcmFloat], model: Model, *, over_music: bool = True) -> Spoken:
        """Say each sentence over music, or without it, and note what was understood."""
        device, found = self.device, Spoken(len(sentences), 0, [], 0, 0, [])
        for sentence in sentences:
            model.plays = over_music
            turn = await self.music() if over_music else None
            if turn is None and not device.manners.microphone_from_ms:
                device.listen()
            await asyncio.sleep(_SPEAKS_AFTER_S if over_music else 1.0)
            model.plays = False
            began_ms = device.now_ms()
            self.ear.talk(sentence)
            await asyncio.sleep(len(sentence) / UPLINK_RATE_HZ)
            try:
                await device.until(partial(self.agreed, began_ms), 4.0)
                found.texts.append(device.turn_log.heard)
            except TimeoutError:  # not heard over the music
                found.texts.append("")
                device.abort()
            if over_music and found.texts[-1] and (stop_ms := self.stopped(began_ms)) is not None:
                found.noticed += 1
                found.after_ms.append(stop_ms - began_ms)
            await self.over(turn)
        return found

    async def over(self, turn: "asyncio.Task[object] | None") -> None:
        """Wait until the device is silent."""
        if turn is not None:
            await turn
        await asyncio.sleep(1.0)
        while self.device.manners.replying:  # the server took the song for a wish and has answered it
            self.device.abort()
            await asyncio.sleep(1.0)
        await self.device.until(lambda: self.device.manners.settled, 30.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of music at one level of echo; `clean` is what was understood of the same sentences without any."""

    music: str
    echo_db: float
    alone: Alone
    spoken: Spoken
    clean: list[str]


async def measure(
    server: ServerProcess,
    model: Model,
    echoes: Sequence[float],
    sentences: Sequence[PcmFloat],
    seconds: float,
    name: str,
) -> list[Row]:
    """Every level of echo, one after the other."""
    number = 0

    @asynccontextmanager
    async def listener(echo_db: float | None) -> AsyncIterator[Listener]:
        nonlocal number
        number += 1
        made = Listener(number, session, echo_db)
        async with made.device:
            await made.device.connect(server.url)
            yield made

    async with device_session() as session:
        async with listener(None) as device:
            clean = await device.spoken(sentences, model, over_music=False)
        rows = []
        for echo_db in echoes:
            model.plays = True
            async with listener(echo_db) as device:
                alone = await device.alone(seconds)
            async with listener(echo_db) as device:
                spoken = await device.spoken(sentences, model)
            spoken.wrong = sum(edits(words(a), words(b)) for a, b in zip(clean.texts, spoken.texts, strict=True))
            spoken.words = sum(len(words(text)) for text in clean.texts)
            rows.append(Row(name, echo_db, alone, spoken, clean.texts))
    return rows


def show(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    return table(
        (
            "music", "echo dB", "seconds alone", "pauses a minute", "silent ms a minute", "stopped by itself, a minute",
            "sentences noticed", "music over after ms, p50", "p95", "words wrong",
        ),
        (
            (
                row.music,
                f"{row.echo_db:.0f}",
                row.alone.heard_s,
                row.alone.pauses * 60.0 / row.alone.heard_s,
                row.alone.paused_ms * 60.0 / row.alone.heard_s,
                row.alone.stopped * 60.0 / row.alone.heard_s,
                share(row.spoken.noticed, row.spoken.said),
                spread(row.spoken.after_ms)["p50"],
                spread(row.spoken.after_ms)["p95"],
                share(min(row.spoken.wrong, row.spoken.words), row.spoken.words),
            )
            for row in rows
        ),
    )  # fmt: skip


def _loud(path: Path) -> PcmFloat:
    pcm = read_wav(path)
    raised: PcmFloat = (pcm * (_TALKER_RMS / max(1e-6, float(np.sqrt(np.mean(pcm**2)))))).astype(np.float32)
    return raised


def said_over(given: Sequence[Path], most: int) -> list[PcmFloat]:
    """The sentences of WAV files and of folders with an index, as loud as people are: float32[n] at 16 kHz each.

    Raises:
        SystemExit: a folder without an index.
    """
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            rows = [row for row in read_index(path) if row["language"] == "en" and row["kind"] in SENTENCES]
            files += [path / row["file"] for row in rows if float(row["duration_s"]) <= LONGEST_CLIP_S]
        else:
            files.append(path)
    return [_loud(path) for path in files[:most]]


async def judge(given: argparse.Namespace) -> str:
    """A server that runs: a Markdown table."""
    sentences = said_over(given.recordings, given.most)
    rows = []
    for echo_db in given.echo:
        room = RoomMicrophone(echo_db)
        found = await talk_over(given.server, room, given.question, sentences, given.replies, aec=not given.no_aec)
        after = spread(found.silent_after_ms)
        rows.append(
            (
                f"{echo_db:.0f}",
                share(found.answered, found.replies),
                share(found.noticed, found.said),
                after["p50"],
                after["p95"],
            )
        )
        if given.texts:
            print("\n".join(f"  {text}" for text in found.heard))
    header = ("echo dB", "replies answered by themselves", "sentences noticed", "silent after ms, p50", "p95")
    return table(header, rows)


async def run(given: argparse.Namespace) -> list[Row]:
    """Every kind of music."""
    sentences = said_over(given.recordings, given.most)
    singers = [read_wav(path) for path in given.singers]
    played = band(given.seconds + 30.0)
    music = {"band": played} if given.music != "voices" else {}
    if singers and given.music != "band":
        music["band and voices"] = with_voices(played, singers)
    rows: list[Row] = []
    asr = 'engine = "pocketsphinx"\n'
    if given.streaming_model:
        asr = f'engine = "zipformer"\nmodel_dir = "{given.streaming_model.resolve()}"\n'
    for name, sound in music.items():
        with tempfile.TemporaryDirectory(prefix="xiaozhi-echo-") as folder:
            await asyncio.to_thread(write_track, Path(folder) / "song.mp3", sound, "Song")
            extra = f'[tools.music]\nfolder = "{folder}"\n'
            async with Model() as model, SpeechStandIn(first_byte_ms=150.0, speed=4.0) as voice:
                text = settings_toml(model.url, voice.url, Path(folder), extra, asr).replace(
                    'language = "zh"', 'language = "en"'
                )
                # Other work on the same machine must not make the server refuse devices.
                sets = ("load.shed=false", *(given.set or ()))
                async with server_process(text, sets=sets) as server:
                    rows += await measure(server, model, given.echo, sentences, given.seconds, name)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.echo", description=__doc__)
    parser.add_argument("recordings", nargs="*", type=Path, help="said over it: WAV files, or a folder with an index")
    parser.add_argument("--most", type=int, default=12, help="sentences")
    parser.add_argument("--server", metavar="URL", help="judge a server that runs, by its WebSocket or OTA address")
    parser.add_argument("--question", default="Tell me a long story.", help="what that server is asked")
    parser.add_argument("--replies", type=int, default=3, help="of that server, in which nobody speaks")
    parser.add_argument("--no-aec", action="store_true", help="a device that does not leave its echo to the server")
    parser.add_argument("--singers", nargs="*", type=Path, default=[], help="WAV files that are mixed into the music")
    parser.add_argument("--streaming-model", type=Path, help="folder of a zipformer; pocketsphinx without it")
    parser.add_argument("--music", choices=("both", "band", "voices"), default="both", help="voices need --singers")
    parser.add_argument("--echo", nargs="+", type=float, default=[-30.0, -20.0], help="levels in dB")
    parser.add_argument("--seconds", type=float, default=60.0, help="of music in which nobody speaks")
    parser.add_argument("--set", action="append", help="a setting of the server, as table.name=value")
    parser.add_argument("--texts", action="store_true", help="show what was understood as well")
    given = parser.parse_args(arguments)
    if given.server:
        try:
            print(asyncio.run(judge(given)))
        except ServerUnfit as error:
            raise SystemExit(str(error)) from None
        return 0
    rows = asyncio.run(run(given))
    print(show(rows))
    if given.texts:
        for row in rows:
            print(f"\n{row.music}, {row.echo_db:.0f} dB:")
            print("\n".join(f"  {a}\n  {b}" for a, b in zip(row.clean, row.spoken.texts, strict=True)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
