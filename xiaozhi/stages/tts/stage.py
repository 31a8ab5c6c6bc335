"""The speaking stage: clauses to Opus packets, several clauses synthesised at once and spoken in order."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import SYNTHESIS, Channel
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.events import Clause, ClauseStart, SoundSource, SpeechPacket, SpokenItem
from xiaozhi.settings import Settings
from xiaozhi.stages.tts.cached import LOOKAHEAD_SAMPLES, CachedSpeech
from xiaozhi.stages.tts.engine import Voice, VoiceError
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

_log = logging.getLogger(__name__)

_FRAME_MS: Final = 60
_FRAME_SAMPLES: Final = DOWNLINK_RATE_HZ * _FRAME_MS // 1000
# How far one clause's sound may run ahead of the encoder.
_AHEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 3
# The same for clauses that come as packets.
_AHEAD_PACKETS: Final = 3000 // _FRAME_MS
# A hop to a thread costs 64-83 us, a frame 250-700 us: eight frames make the hop cheap and still leave the thread to
# the next conversation after a few milliseconds.
_FRAMES_PER_JOB: Final = 8


@dataclass(slots=True)
class _Speech:
    """A clause being synthesised: as sound, or as packets where it goes through the cache."""

    clause: Clause
    kept: bool = False
    pcm: Channel[PcmInt] = field(default_factory=lambda: Channel(_AHEAD_SAMPLES, len, kind=SYNTHESIS))
    packets: Channel[bytes] = field(default_factory=lambda: Channel(_AHEAD_PACKETS))
    error: VoiceError | None = None


async def run_tts(
    clauses: Channel[Clause],
    out: Channel[SpokenItem],
    voice: Voice,
    codec: WorkerPool,
    settings: Settings,
    *,
    on_first_speech: Callable[[], None] = lambda: None,
    kept: CachedSpeech | None = None,
    wish: VoiceRequest = ANY_VOICE,
    on_voice: Callable[[str], None] = lambda _voice: None,
    on_hit: Callable[[], None] = lambda: None,
) -> None:
    """Speak clauses until their channel ends, into `out`, which is left open.

    `ClauseStart` goes right before the first packet that holds sound of its clause. Only the last packet of the reply
    is filled up with silence; within it, the rest of a clause shares a packet with the beginning of the next. Clauses
    that go through the cache have packets of their own. A clause that cannot be spoken is logged and left out.

    Args:
        clauses: what to say.
        out: gets the packets; its bound slows everything before it, down to the voice's socket.
        voice: speaks.
        codec: the shared pool that encodes.
        settings: of sound and speech.
        on_first_speech: called once, when the first sound is there.
        kept: the speech cache; clauses that it wants are spoken through it, and `voice` is not asked for them.
        wish: how clauses from `kept` should sound; `voice` knows its own.
        on_voice: told whose voice a clause from `kept` is.
        on_hit: called for each clause that cost no synthesis, before `on_first_speech`.

    Raises:
        VoiceError: there were clauses and none of them could be spoken.
    """
    encoding = _Encoding(out, codec, settings, on_first_speech)
    under_way: Channel[_Speech] = Channel(settings.tts.parallel_clauses)
    # A place is free again when its clause has been encoded, so no more than these wait in memory.
    places = asyncio.Semaphore(settings.tts.parallel_clauses)
    failure: VoiceError | None = None
    async with asyncio.TaskGroup() as tasks:

        async def begin_each() -> None:
            first = True
            try:
                await places.acquire()
                async for clause in clauses:
                    if clause.sound is not None:  # music or the like: no voice is asked
                        speech = _Speech(clause)
                        tasks.create_task(_open(clause.sound, speech), name="tts-sound")
                    elif not clause.speech:  # a face alone
                        speech = _Speech(clause)
                        speech.pcm.close()
                    elif kept is not None and kept.wants(clause):
                        speech = _Speech(clause, kept=True)
                        tasks.create_task(_fetch(kept, speech, wish, on_voice, on_hit, urgent=first), name="tts-clause")
                    else:
                        speech = _Speech(clause)
                        tasks.create_task(_synthesise(voice, speech), name="tts-clause")
                    first = False
                    await under_way.put(speech)
                    await places.acquire()
            finally:
                under_way.close()

        tasks.create_task(begin_each(), name="tts-begin")
        async for speech in under_way:
            await (encoding.pass_on(speech) if speech.kept else encoding.speak(speech))
            places.release()
            if speech.error is not None:
                _log.warning("a clause of %d characters was left out: %s", len(speech.clause.speech), speech.error)
                failure = speech.error
        await encoding.finish()
    if failure is not None and not encoding.heard:
        raise failure


async def _synthesise(voice: Voice, speech: _Speech) -> None:
    try:
        async with aclosing(voice.speak(speech.clause.speech, language=speech.clause.language)) as pieces:
            async for pcm in pieces:
                if len(pcm):
                    await speech.pcm.put(pcm)
    except VoiceError as error:
        speech.error = error
    finally:
        speech.pcm.close()


async def _open(sound: SoundSource, speech: _Speech) -> None:
    """Let sound that is no speech be heard; its source says itself what goes wrong with it."""
    try:
        async with aclosing(sound()) as pieces:
            async for pcm in pieces:
                if len(pcm):
                    await speech.pcm.put(pcm)
    finally:
        speech.pcm.close()


async def _fetch(
    kept: CachedSpeech,
    speech: _Speech,
    wish: VoiceRequest,
    on_voice: Callable[[str], None],
    on_hit: Callable[[], None],
    *,
    urgent: bool,
) -> None:
    made = kept.packets(speech.clause, wish=wish, urgent=urgent, on_voice=on_voice, on_hit=on_hit)
    try:
        async with aclosing(made) as packets:
            async for packet in packets:
                await speech.packets.put(packet)
    except VoiceError as error:
        speech.error = error
    finally:
        speech.packets.close()


class _Encoding:
    """One reply's encoder and what waits for it."""

    def __init__(
        self, out: Channel[SpokenItem], codec: WorkerPool, settings: Settings, on_first_speech: Callable[[], None]
    ) -> None:
        self._out = out
        self._codec = codec
        self._audio = settings.audio
        self._encoder: OpusEncoder | None = None  # none before the first sound, and after packets of another encoder
        self._on_first_speech = on_first_speech
        self._rest: PcmInt = np.empty(0, np.int16)  # less than a frame
        self._unannounced: list[Clause] = []
        self._first = True
        self.heard = False

    async def speak(self, speech: _Speech) -> None:
        """Encode a clause as its sound comes; what is there already goes together."""
        announced = False
        if not speech.clause.speech:
            await self._out.put(ClauseStart(speech.clause))
        async for pcm in speech.pcm:
            if not announced:
                announced = True
                self._unannounced.append(speech.clause)
            if not self.heard:
                self.heard = True
                self._on_first_speech()
            pieces = [self._rest, pcm]
            while len(speech.pcm) and sum(map(len, pieces)) < _FRAMES_PER_JOB * _FRAME_SAMPLES:
                pieces.append(await speech.pcm.get())
            self._rest = np.concatenate(pieces)
            while len(self._rest) >= _FRAME_SAMPLES:
                # The very first frame goes alone: somebody is waiting for it.
                frames = 1 if self._first else min(len(self._rest) // _FRAME_SAMPLES, _FRAMES_PER_JOB)
                await self._encode(frames)

    async def pass_on(self, speech: _Speech) -> None:
        """Put a clause that comes as packets, behind what waits for the end of its frame."""
        announced = False
        async for packet in speech.packets:
            if not announced:
                announced = True
                await self._end_encoder()
                self._first = False
                if not self.heard:
                    self.heard = True
                    self._on_first_speech()
                await self._out.put(ClauseStart(speech.clause))
            await self._out.put(SpeechPacket(packet, _FRAME_MS))

    async def _end_encoder(self) -> None:
        """Let packets of another encoder follow: the sound of this one has to have died away in the decoder.

        Measured: a tone that goes on to the last sample makes the packets of another encoder begin with a crack at
        full scale; the encoder's look-ahead of silence behind it, and there is none.
        """
        if self._encoder is not None or len(self._rest):
            whole = -(-(len(self._rest) + LOOKAHEAD_SAMPLES) // _FRAME_SAMPLES) * _FRAME_SAMPLES
            self._rest = np.pad(self._rest, (0, whole - len(self._rest)))
            await self._encode(whole // _FRAME_SAMPLES)
            self._encoder = None

    async def finish(self) -> None:
        """Fill up the last frame with silence and encode it."""
        if len(self._rest):
            self._rest = np.pad(self._rest, (0, _FRAME_SAMPLES - len(self._rest)))
            await self._encode(1)

    async def _encode(self, frames: int) -> None:
        if self._encoder is None:
            self._encoder = OpusEncoder(
                DOWNLINK_RATE_HZ, _FRAME_MS, self._audio.bitrate_bps, self._audio.complexity, "audio"
            )
        encoder, pcm = self._encoder, self._rest[: frames * _FRAME_SAMPLES]
        self._rest = self._rest[len(pcm) :]
        priority = Priority.FINAL if self._first else Priority.PROBE
        self._first = False
        packets = await self._codec.submit(lambda: encoder.encode(pcm), priority)
        for packet in packets:
            for clause in self._unannounced:
                await self._out.put(ClauseStart(clause))
            self._unannounced.clear()
            await self._out.put(SpeechPacket(packet, _FRAME_MS))
