"""Somebody speaks over a reply, in the mode in which the microphone is always open: how soon is the device silent?

And where it was only noise: does the reply go on, and for how long was it held? Whole conversations in virtual time,
with the real speech model and recogniser; the reply is a recorded voice. With `--echo` the microphone hears the
loudspeaker, so many dB quieter and 120 to 180 ms late.
"""

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.stats import table
from tests.virtual_house import ConversationLoop, Fate, VirtualDevice, use_voices, virtual_services, virtual_settings
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt, to_int16
from xiaozhi.audio.wav import read_wav
from xiaozhi.client.speaker import LossReason, Speaker
from xiaozhi.conversation.services import Services
from xiaozhi.events import MicPacket
from xiaozhi.settings import LlmSettings, Settings, VadSettings
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.zipformer import Zipformer
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.engine import ChatRequest, Delta
from xiaozhi.stages.tts.engine import ClauseVoice
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import SileroModel, load_silero
from xiaozhi.turn.machine import ListeningMode

_FRAME: Final = UPLINK_RATE_HZ * 60 // 1000
_NOISE_RMS: Final = 10.0 ** (-65.0 / 20.0)
_TALKER_RMS: Final = 10.0 ** (-26.0 / 20.0)
_REPLY_RMS: Final = 10.0 ** (-23.0 / 20.0)
_DECODE_S: Final = 0.03
_LONGEST_S: Final = 6.0


class _Story:
    """A chat model with much to say."""

    name = "story"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        for number in range(40):
            yield Delta(f"Chapter {number} of the story. ")

    async def warm(self) -> str:
        return ""

    async def close(self) -> None: ...


class _Recorded(ClauseVoice):
    """Every clause is another piece of a recorded voice."""

    name = "recorded"

    def __init__(self, pcm: PcmFloat) -> None:
        places = np.arange(0, len(pcm), UPLINK_RATE_HZ / DOWNLINK_RATE_HZ)
        self._pcm = to_int16(np.interp(places, np.arange(len(pcm)), pcm).astype(np.float32))
        self._at = 0

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        piece = self._pcm[self._at : self._at + 4 * DOWNLINK_RATE_HZ]
        self._at = (self._at + len(piece)) % max(1, len(self._pcm) - DOWNLINK_RATE_HZ)
        yield piece

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


class RoomDevice(VirtualDevice):
    """A board of the firmware's manners in a room: its microphone hears whoever talks, and its own loudspeaker."""

    def __init__(
        self, fate: Fate, services: Services, *, echo_db: float | None = None, late_ms: float = 150.0, seed: int = 0
    ) -> None:
        super().__init__(fate, services, "always", 60)
        self.is_firmware = True
        self.speaker = Speaker()
        self._gain = 0.0 if echo_db is None else 10.0 ** (echo_db / 20.0)
        self._encoder, self._decoder = OpusEncoder(UPLINK_RATE_HZ, 60, 16_000, 0), OpusDecoder(UPLINK_RATE_HZ)
        self._late_samples = round(late_ms * UPLINK_RATE_HZ / 1000.0)
        self._heard_packets = 0
        self._said = np.zeros(0, np.float32)
        self._room = np.random.default_rng(seed)

    def now_ms(self) -> float:
        """By the loop's clock."""
        return self._loop.time() * 1000.0

    def say(self, pcm: PcmFloat) -> float:
        """Somebody makes this sound from the next packet on; when that begins, in milliseconds."""
        self._said = pcm
        return self._next_ms

    def audio(self, opus: bytes, generation: int) -> None:
        """See `DeviceLink`."""
        super().audio(opus, generation)
        if generation > self._silenced:
            self.speaker.put(opus, packet_ms(opus), self.now_ms())

    def tts_start(self) -> None:
        """See `DeviceLink`."""
        if self.state != "speaking":
            self.speaker.clear(self.now_ms(), LossReason.CLEARED_BY_START)
            self.speaker.begin_reply(self.now_ms())
        super().tts_start()

    def _echo_until(self, now_ms: float) -> PcmFloat:
        """What the microphone hears of the loudspeaker in the 60 ms before."""
        self.speaker.advance(now_ms)
        begin_ms = now_ms - 60.0 - self._late_samples * 1000.0 / UPLINK_RATE_HZ
        sound = np.zeros(_FRAME, np.float32)
        if not self._gain:
            return sound
        for played in self.speaker.playback.heard[self._heard_packets :]:
            self._played.append((played.at_ms, self._decoder.decode(played.packet), played.heard_ms))
            self._heard_packets += 1
        for at_ms, pcm, heard_ms in self._played[-12:]:
            at = round((at_ms - begin_ms) * UPLINK_RATE_HZ / 1000.0)
            pcm = pcm[: round(heard_ms * UPLINK_RATE_HZ / 1000.0)]
            first, last = max(0, at), min(_FRAME, at + len(pcm))
            if first < last:
                sound[first:last] = pcm[first - at : last - at]
        return sound * np.float32(self._gain)

    async def _send(self) -> None:
        self._played: list[tuple[float, PcmFloat, float]] = []
        self._next_ms = self.now_ms()
        while True:
            self._next_ms = self.now_ms()
            await asyncio.sleep(0.06)
            said, self._said = self._said[:_FRAME], self._said[_FRAME:]
            heard = np.pad(said, (0, _FRAME - len(said))) + self._room.normal(0.0, _NOISE_RMS, _FRAME)
            heard = heard + self._echo_until(self.now_ms())
            (opus,) = self._encoder.encode(to_int16(np.clip(heard, -1.0, 1.0).astype(np.float32)))
            if self.microphone_is_open:
                self.talk.hear(MicPacket(opus))


@dataclass(slots=True)
class Over:
    """What became of a reply over which something sounded.

    Attributes:
        stopped: the reply was ended by it.
        silent_ms: when the loudspeaker fell silent for good, after the sound began; None where it did not.
        held_ms: how long the loudspeaker was silent in the midst of a reply that went on.
        heard: what was understood.
        after_word_ms: when the loudspeaker fell silent, after the sound ended.
    """

    name: str
    stopped: bool
    silent_ms: float | None
    held_ms: float
    heard: str
    after_word_ms: float = 0.0


def edges(pcm: PcmFloat) -> tuple[int, int]:
    """First and last sample of what anybody would call speech: 20 ms within 17 dB of the loudest."""
    frames = pcm[: len(pcm) // 320 * 320].reshape(-1, 320)
    power = np.sum(frames**2, axis=1)
    sounds = np.flatnonzero(power > power.max() * 10.0**-1.7)
    return int(sounds[0]) * 320, int(sounds[-1]) * 320 + 320


def loud(pcm: PcmFloat, rms: float = _TALKER_RMS) -> PcmFloat:
    """As loud as people are; digital silence stays."""
    first, last = edges(pcm)
    raised: PcmFloat = (pcm * (rms / max(1e-6, float(np.sqrt(np.mean(pcm[first:last] ** 2)))))).astype(np.float32)
    return raised


async def speak_over(
    name: str,
    pcm: PcmFloat,
    model: SileroModel,
    engine: Zipformer,
    reply: PcmFloat,
    seed: int,
    echo_db: float | None = None,
    settings: Settings | None = None,
) -> Over:
    """Let one sound over one reply; a tenth of a second of it comes before its first edge."""
    loop = asyncio.get_running_loop()
    fate = Fate(random.Random(seed), calm=True)
    settings = settings or virtual_settings()
    services = virtual_services(settings, fate, engine)
    services.batcher = VadBatcher(model, settings.vad)
    loop.decode_s = lambda: _DECODE_S  # type: ignore[attr-defined]
    services.chat = Chat(LlmSettings(), [_Story()])
    use_voices(services, _Recorded(loud(reply, _REPLY_RMS)))
    dice = random.Random(seed)
    device = RoomDevice(fate, services, echo_db=echo_db, late_ms=dice.uniform(120.0, 180.0), seed=seed)
    try:
        await asyncio.sleep(0)
        device.listen(ListeningMode.REALTIME)
        await asyncio.sleep(1.0)
        device.talk.typed("tell me a story")
        while device.heard_at < 0:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        await asyncio.sleep(2.5 + dice.uniform(0.0, 0.3))
        first, last = edges(pcm)
        lead_in = dice.randrange(_FRAME)
        pcm = pcm[max(0, first - 1600) : last + 1600]
        first, last = edges(pcm)
        machine = device.talk._machine
        generation = machine.generation
        began_ms = device.say(np.pad(pcm, (lead_in, 0)).astype(np.float32)) + (lead_in + first) / 16.0
        ended_ms = began_ms + (last - first) / 16.0
        while loop.time() * 1000.0 < ended_ms + 1500.0 and machine.generation == generation:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)
        stopped = machine.generation != generation
        await asyncio.sleep(0.5 if stopped else 0.0)
        device.speaker.advance(device.now_ms())
        before = [p for p in device.speaker.playback.heard if p.at_ms + p.heard_ms > began_ms]
        gaps = [b.at_ms - a.at_ms - a.heard_ms for a, b in itertools.pairwise(before)]
        end = before[-1].at_ms + before[-1].heard_ms if before else began_ms
        silent_ms = end - began_ms if stopped else None
        heard = device.talk._heard.transcript.text
        return Over(name, stopped, silent_ms, sum(g for g in gaps if g > 5.0), heard, end - ended_ms)
    finally:
        await device.close()


def play(
    sounds: Sequence[tuple[str, PcmFloat]],
    engine: Zipformer,
    reply: PcmFloat,
    echo_db: float | None = None,
    settings: Settings | None = None,
) -> list[Over]:
    """Each over a reply of its own."""
    model, found = load_silero(VadSettings(warm_up=False)), []
    for number, (name, pcm) in enumerate(sounds):
        with asyncio.Runner(loop_factory=ConversationLoop) as runner:
            found.append(runner.run(speak_over(name, pcm, model, engine, reply, number, echo_db, settings)))
    return found


def show(over: Sequence[Over]) -> str:
    """A line."""
    ended = [each.silent_ms for each in over if each.silent_ms is not None]
    held = [each.held_ms for each in over if not each.stopped]
    return table(
        ("sounds", "replies stopped", "sound ends after ms, p50", "p90", "max", "others held for ms, max"),
        [
            (
                len(over),
                len(ended),
                *(f"{np.percentile(ended, share):.0f}" if ended else "" for share in (50, 90, 100)),
                f"{max(held, default=0.0):.0f}",
            )
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.barge_in", description=__doc__)
    parser.add_argument("recordings", nargs="+", type=Path, help="WAV files that sound over a reply, 6 s of each")
    parser.add_argument("--reply", type=Path, required=True, help="a WAV file: the voice of the device")
    parser.add_argument("--streaming-model", type=Path, required=True, help="folder of a zipformer")
    parser.add_argument("--echo", type=float, help="level of the loudspeaker in the microphone, in dB")
    parser.add_argument("--each", action="store_true", help="show what became of each")
    given = parser.parse_args(arguments)
    sounds = [(path.stem, loud(read_wav(path)[: int(_LONGEST_S * UPLINK_RATE_HZ)])) for path in given.recordings]
    over = play(sounds, Zipformer(find_transducer(given.streaming_model)), read_wav(given.reply), given.echo)
    print(show(over))
    if given.each:
        print("\n".join(map(str, over)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
