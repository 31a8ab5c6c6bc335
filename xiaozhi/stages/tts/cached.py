"""Clauses spoken from the speech cache, and put there when the right voice has spoken them whole."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import astuple, dataclass, field
from typing import Final

import numpy as np

from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.cache.speech import SpeechCache, speech_key
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.events import Clause
from xiaozhi.settings import Settings, TtsSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

_log = logging.getLogger(__name__)

_FRAME_MS: Final = 60
_FRAME_SAMPLES: Final = DOWNLINK_RATE_HZ * _FRAME_MS // 1000
_AHEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 3
_FRAMES_PER_JOB: Final = 8  # as for a reply's own encoder, see `stages/tts/stage.py`
# libopus in the mode `audio` sounds 312 samples at 48 kHz late: with less silence behind it a clause loses its end.
LOOKAHEAD_SAMPLES: Final = 156
# Nobody listens to what is made ahead: rather wait for another node than have it made twice.
_PREMAKE_WAIT_S: Final = 5.0
"""Silence at 24 kHz behind the sound of an encoder that ends."""


@dataclass(slots=True)
class _Making:
    """How a clause was made."""

    voices: list[str] = field(default_factory=list)
    cut: bool = False

    def was_cut(self) -> None:
        self.cut = True


class CachedSpeech:
    """The voices of a process behind its speech cache.

    Every clause has an encoder of its own and is filled up to whole frames, so that kept and fresh clauses can follow
    each other in any order.

    Args:
        cache: keeps packets.
        chain: speaks what is not there.
        codec: the shared pool that encodes.
        settings: of sound and cache.
        voices: what the sound of each voice of the chain depends on, see `voice_fingerprints`.
    """

    def __init__(
        self,
        cache: SpeechCache,
        chain: VoiceChain,
        codec: WorkerPool,
        settings: Settings,
        voices: Mapping[str, str],
    ) -> None:
        self.cache = cache
        self._chain = chain
        self._codec = codec
        self._audio = settings.audio
        self._max_chars = settings.cache.speech_max_chars
        self._voices = voices

    def wants(self, clause: Clause) -> bool:
        """Whether a clause is short enough to be kept."""
        return len(clause.speech) <= self._max_chars and any(map(str.isalnum, clause.speech))

    async def packets(
        self,
        clause: Clause,
        *,
        wish: VoiceRequest = ANY_VOICE,
        urgent: bool = False,
        on_voice: Callable[[str], None] = lambda _voice: None,
        on_hit: Callable[[], None] = lambda: None,
        wait_s: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield a clause as Opus packets of 60 ms, as early as they exist.

        Args:
            clause: one that `wants` accepts.
            wish: how it should sound.
            urgent: goes first when voices are scarce.
            on_voice: told whose voice it is, before its first packet.
            on_hit: called when the packets were kept, before the first of them.
            wait_s: how long to wait for another node that is making it already; None: as long as a listener would.

        Raises:
            VoiceError: no voice could speak it.
        """
        first = self._chain.first_in_line()
        # The best voice's clause is good whoever would speak now; below the one in line nobody would be asked.
        names = [state.name for state in self._chain.states]
        names = names[: names.index(first) + 1]
        kept = await self.cache.find([self._key(name, clause, wish) for name in names])
        if kept is not None:
            on_hit()
            on_voice(first)
            for packet in kept:
                yield packet
            return
        making = _Making()
        told: list[str] = []
        stream = self.cache.follow(
            self._key(first, clause, wish),
            lambda: self._make(clause, wish, making, urgent=urgent),
            lambda: self._keep_under(clause, wish, making),
            wait_s,
        )
        async with aclosing(stream) as made:
            async for packet in made:
                for name in (making.voices or [first])[len(told) :]:
                    told.append(name)
                    on_voice(name)
                yield packet

    async def premake(self, clauses: Iterable[Clause]) -> int:
        """Have clauses made ahead, one after another; those that are kept cost nothing.

        Returns:
            How many are there now. Ends at the first that no voice can speak.
        """
        ready = 0
        for clause in clauses:
            if not self.wants(clause):
                continue
            try:
                async with aclosing(self.packets(clause, wait_s=_PREMAKE_WAIT_S)) as packets:
                    async for _ in packets:
                        pass
            except VoiceError as error:
                _log.warning("common phrases are not made ahead: %s", error)
                break
            ready += 1
        return ready

    def _key(self, voice: str, clause: Clause, wish: VoiceRequest) -> bytes:
        return speech_key(
            self._voices.get(voice, voice),
            clause.language,
            clause.speech,
            astuple(wish),
            DOWNLINK_RATE_HZ,
            _FRAME_MS,
            self._audio.bitrate_bps,
            self._audio.complexity,
        )

    def _keep_under(self, clause: Clause, wish: VoiceRequest, making: _Making) -> bytes | None:
        """Under the key of the one voice that spoke all of it; not at all when it was begun anew or broke off."""
        if making.cut or len(making.voices) != 1:
            return None
        return self._key(making.voices[0], clause, wish)

    async def _make(
        self, clause: Clause, wish: VoiceRequest, making: _Making, *, urgent: bool
    ) -> AsyncGenerator[bytes, None]:
        # Kept for many listeners, so at the full effort of the settings, however busy the process is.
        encoder = OpusEncoder(DOWNLINK_RATE_HZ, _FRAME_MS, self._audio.bitrate_bps, self._audio.complexity, "audio")
        pcm: Channel[PcmInt] = Channel(_AHEAD_SAMPLES, len)
        speaking = asyncio.create_task(self._speak(clause, wish, making, pcm, urgent=urgent), name="tts-kept")
        rest: PcmInt = np.empty(0, np.int16)
        first = True
        try:
            async for piece in pcm:
                pieces = [rest, piece]
                while len(pcm) and sum(map(len, pieces)) < _FRAMES_PER_JOB * _FRAME_SAMPLES:
                    pieces.append(await pcm.get())
                rest = np.concatenate(pieces)
                while len(rest) >= _FRAME_SAMPLES:
                    # The very first frame goes alone: somebody is waiting for it.
                    frames = 1 if first else min(len(rest) // _FRAME_SAMPLES, _FRAMES_PER_JOB)
                    for packet in await self._encode(encoder, rest[: frames * _FRAME_SAMPLES], first=first):
                        yield packet
                    first = False
                    rest = rest[frames * _FRAME_SAMPLES :]
            await speaking
            if len(rest) or not first:
                whole = -(-(len(rest) + LOOKAHEAD_SAMPLES) // _FRAME_SAMPLES) * _FRAME_SAMPLES
                for packet in await self._encode(encoder, np.pad(rest, (0, whole - len(rest))), first=first):
                    yield packet
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _encode(self, encoder: OpusEncoder, pcm: PcmInt, *, first: bool) -> list[bytes]:
        return await self._codec.submit(lambda: encoder.encode(pcm), Priority.FINAL if first else Priority.PROBE)

    async def _speak(
        self, clause: Clause, wish: VoiceRequest, making: _Making, pcm: Channel[PcmInt], *, urgent: bool
    ) -> None:
        speech = self._chain.speak(
            clause.speech,
            language=clause.language,
            wish=wish,
            urgent=urgent,
            on_voice=making.voices.append,
            on_cut=making.was_cut,
        )
        try:
            async with aclosing(speech) as pieces:
                async for piece in pieces:
                    if len(piece):
                        await pcm.put(piece)
        finally:
            pcm.close()


def voice_fingerprints(names: Sequence[str], settings: TtsSettings, about: Sequence[str]) -> dict[str, str]:
    """What the sound of each voice depends on, as text for a key; secrets are masked in it.

    Args:
        names: of the voices.
        settings: the `[tts]` table; a voice's own table has its name.
        about: lines about the voices, each beginning with the name: they tell which local model is used.
    """
    prints = {}
    for name in names:
        table = getattr(settings, name, None)
        own = table.model_dump_json() if table is not None else ""
        prints[name] = "\n".join([name, own, *(line for line in about if line.split(" ")[0] == name)])
    return prints
