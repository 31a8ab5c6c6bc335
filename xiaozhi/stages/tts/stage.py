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
from xiaozhi.channel import Channel
from xiaozhi.events import Clause, ClauseStart, SpeechPacket, SpokenItem
from xiaozhi.settings.model import Settings
from xiaozhi.stages.tts.engine import Voice, VoiceError
from xiaozhi.workers import Priority, WorkerPool

_log = logging.getLogger(__name__)

_FRAME_MS: Final = 60
_FRAME_SAMPLES: Final = DOWNLINK_RATE_HZ * _FRAME_MS // 1000
# How far one clause's sound may run ahead of the encoder.
_AHEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 3
# A hop to a thread costs 64-83 us, a frame 250-700 us: eight frames make the hop cheap and still leave the thread to
# the next conversation after a few milliseconds.
_FRAMES_PER_JOB: Final = 8


@dataclass(slots=True)
class _Speech:
    """A clause being synthesised."""

    clause: Clause
    pcm: Channel[PcmInt] = field(default_factory=lambda: Channel(_AHEAD_SAMPLES, len))
    error: VoiceError | None = None


async def run_tts(
    clauses: Channel[Clause],
    out: Channel[SpokenItem],
    voice: Voice,
    codec: WorkerPool,
    settings: Settings,
    *,
    on_first_speech: Callable[[], None] = lambda: None,
) -> None:
    """Speak clauses until their channel ends, into `out`, which is left open.

    `ClauseStart` goes right before the first packet that holds sound of its clause. Only the last packet of the reply
    is filled up with silence; within it, the rest of a clause shares a packet with the beginning of the next. A clause
    that cannot be spoken is logged and left out.

    Args:
        clauses: what to say.
        out: gets the packets; its bound slows everything before it, down to the voice's socket.
        voice: speaks.
        codec: the shared pool that encodes.
        settings: of sound and speech.
        on_first_speech: called once, when the first sound is there.

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
            try:
                await places.acquire()
                async for clause in clauses:
                    speech = _Speech(clause)
                    tasks.create_task(_synthesise(voice, speech), name="tts-clause")
                    await under_way.put(speech)
                    await places.acquire()
            finally:
                under_way.close()

        tasks.create_task(begin_each(), name="tts-begin")
        async for speech in under_way:
            await encoding.speak(speech)
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


class _Encoding:
    """One reply's encoder and what waits for it."""

    def __init__(
        self, out: Channel[SpokenItem], codec: WorkerPool, settings: Settings, on_first_speech: Callable[[], None]
    ) -> None:
        self._out = out
        self._codec = codec
        self._encoder = OpusEncoder(
            DOWNLINK_RATE_HZ, _FRAME_MS, settings.audio.bitrate_bps, settings.audio.complexity, "audio"
        )
        self._on_first_speech = on_first_speech
        self._rest: PcmInt = np.empty(0, np.int16)  # less than a frame
        self._unannounced: list[Clause] = []
        self._first = True
        self.heard = False

    async def speak(self, speech: _Speech) -> None:
        """Encode a clause as its sound comes; what is there already goes together."""
        announced = False
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

    async def finish(self) -> None:
        """Fill up the last frame with silence and encode it."""
        if len(self._rest):
            self._rest = np.pad(self._rest, (0, _FRAME_SAMPLES - len(self._rest)))
            await self._encode(1)

    async def _encode(self, frames: int) -> None:
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
