"""Music over a real socket: whether it plays without a gap, how soon it stops, and with many devices at once.

A device asks for music, the stand-in model calls `play_music`, and the server streams an encoded track. The device's
loudspeaker is the firmware's: a queue of 44 packets, the newest dropped when it is full.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.first_word import CACHE, settings_toml
from bench.harness import ServerProcess, server_process
from bench.lag import watched_lag
from bench.music_material import band, write_track
from bench.sense_voice_model import build_full, build_tiny
from bench.spoken import spoken
from bench.standins.chat import ChatMessages, ChatStandIn
from bench.standins.speech import SpeechStandIn
from bench.stats import spread, table
from bench.user import gaps_ms
from xiaozhi.client.device import Device
from xiaozhi.client.link import device_session
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.speaker import FIRMWARE_QUEUE_PACKETS
from xiaozhi.turn.machine import ListeningMode

WISH: Final = "放一首歌"
STOP: Final = "好了，停下来吧"
AGREED: Final = "好的。"
# Promised to the owners of devices.
STOPS_WITHIN_MS: Final = 200.0
# A loudspeaker that ran dry for less than this is a timer's rounding.
_PACKET_MS: Final = 60.0
_SETTLE_S: Final = 5.0  # of the server's memory, after the first seconds of the first track
_LAG_PROBE_S: Final = 0.01
WAYS: Final = ("button", "wake word", "speech")


class Model(ChatStandIn):
    """A chat model that calls `play_music`, or agrees; `plays` says which."""

    plays = True

    def __init__(self) -> None:
        super().__init__(self._say, first_token_ms=300.0, tokens_per_s=40.0, tool_pieces=self._call)

    def _wants(self, messages: ChatMessages) -> bool:
        return self.plays and messages[-1]["role"] == "user"

    def _say(self, messages: ChatMessages) -> str:
        return "" if self._wants(messages) else AGREED

    def _call(self, messages: ChatMessages) -> Sequence[list[dict[str, Any]]]:
        if not self._wants(messages):
            return ()
        head = {"index": 0, "id": "call_0", "type": "function", "function": {"name": "play_music", "arguments": ""}}
        return [[head], [{"index": 0, "function": {"arguments": "{}"}}]]


class Listener(Device):
    """A device whose packets are timed as they come."""

    def __init__(
        self, number: int, session: aiohttp.ClientSession, mode: ListeningMode = ListeningMode.AUTO, **parts: Any
    ) -> None:
        super().__init__(ClientIdentity.numbered(number), decode_reply=False, session=session, mode=mode, **parts)
        self.packets: list[tuple[float, float]] = []
        """When each packet since `ask` came, and what the loudspeaker still had then; both in milliseconds."""
        self.voiced_ms = 0.0
        """When the last voiced sample was spoken."""

    def _audio(self, message: bytes) -> None:
        now_ms = self.now_ms()
        self.packets.append((now_ms, self.manners.speaker.queued_ms(now_ms)))
        super()._audio(message)

    def _voiced(self, at_ms: float) -> None:
        self.voiced_ms = at_ms
        super()._voiced(at_ms)

    @property
    def heard_ms(self) -> float:
        """How much of this reply has been heard."""
        return self.manners.speaker.playback.heard_ms

    def ask(self, wish: SpokenUtterance) -> "asyncio.Task[Any]":
        """Say something; the task ends when the reply has been played."""
        self.begin_turn()  # what was heard before does not count, even before the task runs
        self.packets.clear()
        return asyncio.create_task(self.turn(wish, reply_timeout_s=3600.0))


@dataclass(frozen=True, slots=True)
class Played:
    """One device's music.

    Attributes:
        heard_s: how much of it.
        worst_gap_ms, late_frames, frames: silence in it, and packets that came after the loudspeaker had run dry.
        queue_most: the most packets that waited in the device.
        min_ms: what it still had, in the worst case, when a packet came; the first second does not count.
        dropped: packets the device could not take.
    """

    heard_s: float
    worst_gap_ms: float
    late_frames: int
    frames: int
    queue_most: float
    min_ms: float
    dropped: int


async def play(device: Listener, wish: SpokenUtterance, seconds: float) -> Played:
    """Ask for music, hear so much of it, and stop it by the button."""
    turn = device.ask(wish)
    await device.until(lambda: device.heard_ms >= seconds * 1000.0, seconds + 60.0)
    playback = device.manners.speaker.playback
    silences = gaps_ms(playback.heard)
    played = Played(
        playback.heard_ms / 1000.0,
        max(silences, default=0.0),
        len(silences),
        playback.received,
        playback.lead_max_ms / _PACKET_MS,
        min((left_ms for _, left_ms in device.packets[int(1000.0 / _PACKET_MS) :]), default=0.0),
        sum(playback.dropped.values()),
    )
    device.abort()
    await turn
    return played


@dataclass(frozen=True, slots=True)
class Stopped:
    """One stop; milliseconds after it was told: the last packet and the last sound, and, for speech, since it began."""

    last_packet_ms: float
    silent_ms: float
    since_onset_ms: float | None = None


async def stop(
    device: Listener, way: str, model: Model, wish: SpokenUtterance, words: SpokenUtterance, after_s: float
) -> Stopped:
    """Let music play for a while and stop it in one of the `WAYS`.

    Speech is told when its last sample has been spoken; a button and a wake word when the device sends its `abort`.
    """
    model.plays = True
    turn = device.ask(wish)
    await device.until(lambda: device.heard_ms >= after_s * 1000.0, 60.0)
    model.plays = False
    told_ms, playback = device.now_ms(), device.manners.speaker.playback
    if way == "speech":
        device.say(words)
        await device.until(lambda: _agreed_ms(device, told_ms) is not None, 20.0)
        await turn
        await device.until(lambda: not device.manners.replying and device.manners.settled, 20.0)
        onset_ms, told_ms, answer_ms = told_ms, device.voiced_ms, _agreed_ms(device, told_ms)
        assert answer_ms is not None
        last_ms = max(at_ms for at_ms, _ in device.packets if at_ms < answer_ms)
        silent_ms = max(each.at_ms + each.heard_ms for each in playback.heard if each.at_ms < answer_ms)
        return Stopped(last_ms - told_ms, silent_ms - told_ms, last_ms - onset_ms)
    if way == "wake word":
        device.listen(reason="wake_word_detected")
    else:
        device.abort()
    await turn
    stopped = Stopped(device.packets[-1][0] - told_ms, (playback.ended_ms or told_ms) - told_ms)
    if way == "wake word":
        await device.turn(words)
    return stopped


def _agreed_ms(device: Listener, since_ms: float) -> float | None:
    """When the answer to what was said over the music began to be heard."""
    return next((at_ms for at_ms, said in device.received if at_ms > since_ms and said.get("text") == AGREED), None)


@dataclass(slots=True)
class Result:
    """Everything measured.

    Attributes:
        alone: the music of a single device.
        memory_mb: of the server, at the beginning and at the end of that.
        stops: by way.
        many, many_cpu_share: the music of many devices, and what it cost of one core.
        own_lag_ms: the longest that this bench itself was held up while music played: gaps up to there may be its own.
    """

    alone: Played
    memory_mb: tuple[float, float]
    stops: dict[str, list[Stopped]]
    many: list[Played]
    many_cpu_share: float
    own_lag_ms: float


async def measure(server: ServerProcess, model: Model, seconds: float, stops: int, devices: int) -> Result:
    """One device for so long, stops of every kind, then many devices for so long."""
    (wish, words), dice = await asyncio.to_thread(_speech), random.Random(1)
    async with watched_lag(_LAG_PROBE_S) as lag, device_session() as session:
        async with Listener(1, session) as device:
            await device.connect(server.url)
            await play(device, wish, _SETTLE_S)
            before_mb = server.rss_mb()
            alone = await play(device, wish, seconds)
            memory_mb = (before_mb, server.rss_mb())
        stopped: dict[str, list[Stopped]] = {}
        for way in WAYS:
            mode = ListeningMode.REALTIME if way == "speech" else ListeningMode.AUTO
            async with Listener(2, session, mode) as device:
                await device.connect(server.url)
                stopped[way] = [
                    await stop(device, way, model, wish, words, dice.uniform(2.0, 4.0)) for _ in range(stops)
                ]
        model.plays = True
        many = [Listener(10 + number, session) for number in range(devices)]
        try:
            await asyncio.gather(*(device.connect(server.url) for device in many))
            began_s, cpu_s = asyncio.get_running_loop().time(), server.cpu_s()
            played = await asyncio.gather(*(play(device, wish, seconds) for device in many))
            took_s = asyncio.get_running_loop().time() - began_s
            share = (server.cpu_s() - cpu_s) / took_s
        finally:
            await asyncio.gather(*(device.close() for device in many))
    return Result(alone, memory_mb, stopped, list(played), share, lag.worst_ms)


def _speech() -> tuple[SpokenUtterance, SpokenUtterance]:
    return SpokenUtterance.encode(spoken(WISH), 60), SpokenUtterance.encode(spoken(STOP), 60)


def show(result: Result) -> str:
    """Two Markdown tables."""
    rows: list[Sequence[object]] = []
    for name, played in (("one device", [result.alone]), (f"{len(result.many)} devices at once", result.many)):
        if played:
            rows.append(
                (
                    name,
                    min(each.heard_s for each in played),
                    max(each.worst_gap_ms for each in played),
                    f"{sum(each.late_frames for each in played)} of {sum(each.frames for each in played)}",
                    f"{min(each.min_ms for each in played) / _PACKET_MS:.1f} to "
                    f"{max(each.queue_most for each in played):.1f}",
                    sum(each.dropped for each in played),
                )
            )
    header = ("music", "seconds", "worst gap ms", "late frames", "packets waiting (44 fit)", "packets lost")
    stops = table(
        ("last packet after being told by", "n", "p50 ms", "p95 ms", "max ms", "silent, max ms", "since onset, p50 ms"),
        (
            (
                way,
                len(stopped),
                *(spread(each.last_packet_ms for each in stopped)[key] for key in ("p50", "p95", "max")),
                spread(each.silent_ms for each in stopped)["max"],
                spread(each.since_onset_ms for each in stopped)["p50"],
            )
            for way, stopped in result.stops.items()
        ),
    )
    first_mb, last_mb = result.memory_mb
    lag = f"This bench itself was held up for {result.own_lag_ms:.0f} ms at most."
    return (
        f"{table(header, rows)}\n\n{stops}\n\nThe server's memory while one device played: {first_mb:.1f} -> "
        f"{last_mb:.1f} MB; {result.many_cpu_share:.0%} of a core with {len(result.many)} devices. {lag}"
    )


def faults(result: Result) -> list[str]:
    """What was promised and did not hold, one line each."""
    found = []
    for number, played in enumerate([result.alone, *result.many]):
        if played.late_frames or played.dropped or played.queue_most > FIRMWARE_QUEUE_PACKETS:
            found.append(f"device {number}: {played.late_frames} late frames, {played.dropped} lost")
    for way, stopped in result.stops.items():
        if late := [each for each in stopped if each.last_packet_ms > STOPS_WITHIN_MS]:
            found.append(f"{way}: {len(late)} of {len(stopped)} stops took more than {STOPS_WITHIN_MS:.0f} ms")
    return found


async def run(seconds: float, stops: int, devices: int, kind: str, *, tiny: bool) -> Result:
    """Start everything, measure, stop everything."""
    model_dir = CACHE / ("sense-voice-tiny" if tiny else "sense-voice")
    await asyncio.to_thread(build_tiny if tiny else build_full, model_dir)
    with tempfile.TemporaryDirectory(prefix="xiaozhi-music-") as folder:
        track = Path(folder) / f"song.{kind}"
        await asyncio.to_thread(lambda: write_track(track, band(seconds + 20.0), "Song"))
        extra = f'[tools.music]\nfolder = "{folder}"\n'
        async with (
            Model() as model,
            SpeechStandIn(first_byte_ms=150.0, speed=4.0) as voice,
            server_process(settings_toml(model.url, voice.url, model_dir, extra)) as server,
        ):
            return await measure(server, model, seconds, stops, devices)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 when music had a gap or did not stop in time."""
    parser = argparse.ArgumentParser(prog="python -m bench.music", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of music that are listened to")
    parser.add_argument("--stops", type=int, default=20, help="of each kind")
    parser.add_argument("--devices", type=int, default=20, help="that play at once; 0 for none")
    parser.add_argument("--kind", choices=("mp3", "flac", "ogg"), default="mp3")
    parser.add_argument("--tiny", action="store_true", help="a small recogniser, for a quick trial")
    parser.add_argument("--json", type=Path, help="write every stop and every device here")
    given = parser.parse_args(arguments)
    if given.seconds <= 0 or given.stops < 0 or given.devices < 0:
        parser.error("--seconds must be above 0, --stops and --devices 0 or more")
    result = asyncio.run(run(given.seconds, given.stops, given.devices, given.kind, tiny=given.tiny))
    print(show(result))
    if given.json:
        given.json.write_text(json.dumps(asdict(result), indent=1))
    found = faults(result)
    print("\n".join(found) if found else "\nEverything promised held.")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
