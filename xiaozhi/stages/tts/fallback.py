"""A voice made of several: the best that works speaks, and a device is never left without one."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.stages.tts.engine import Voice, VoiceError
from xiaozhi.stages.tts.preference import EngineState, Preference

_log = logging.getLogger(__name__)

# -54 dBFS: below the quietest speech sound, above the dither of decoded MP3.
_AUDIBLE: Final = 64
# Services begin with up to 0.2 s of nothing; the listener need not wait for it. What is kept softens the onset.
_KEPT_LEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 20 // 1000
# A sentence that broke off after less than this is begun anew by the next engine; after more, a repetition would be
# worse than the missing end.
_RESTART_SAMPLES: Final = DOWNLINK_RATE_HZ * 300 // 1000


class VoiceChain:
    """Tries voices in order of preference, each sentence anew.

    A voice that fails, is silent or takes too long is passed over for the same sentence and skipped for a while. The
    silence before the first sound is cut.

    Args:
        voices: best first.
        first_audio_timeout_s: longest wait for the first audible sound of a sentence.
        idle_timeout_s: longest wait for each further piece.
        retry_after_s: how long a voice that failed is skipped.
        clock: monotonic time in seconds.
        max_concurrent: sentences that may wait for their first sound at once, over all conversations.
    """

    def __init__(
        self,
        voices: Sequence[Voice],
        first_audio_timeout_s: float,
        idle_timeout_s: float,
        retry_after_s: float,
        clock: Callable[[], float],
        max_concurrent: int = 40,
    ) -> None:
        self.name = "+".join(voice.name for voice in voices)
        self._voices = tuple(voices)
        self._first_audio_timeout_s = first_audio_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._preference = Preference([voice.name for voice in voices], retry_after_s)
        self._slots = asyncio.Semaphore(max_concurrent)

    @property
    def states(self) -> tuple[EngineState, ...]:
        """How each voice has done, best first."""
        return self._preference.states

    def overheard(self, on_voice: Callable[[str], None]) -> Voice:
        """The same voices for one reply; `on_voice` is told whose voice it is at the first sound of each sentence."""
        return _Overheard(self, on_voice)

    async def speak(
        self, text: str, *, language: str, on_voice: Callable[[str], None] | None = None
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sentence by the best voice that works; nothing when there is nothing to say.

        `on_voice` gets the name of each voice that begins to speak it.

        Raises:
            VoiceError: no voice could speak.
        """
        if not any(char.isalnum() for char in text):
            return  # marks alone: every engine would be silent, and none would be to blame
        errors: list[str] = []
        for index in self._preference.candidates(self._clock()):
            samples = 0
            try:
                async with aclosing(self._attempt(self._voices[index], text, language)) as pieces:
                    async for pcm in pieces:
                        if not samples:
                            self._spoke(index)
                            if on_voice is not None:
                                on_voice(self._voices[index].name)
                        samples += len(pcm)
                        yield pcm
                return
            except VoiceError as error:
                self._failed(index, error)
                errors.append(str(error))
                if samples >= _RESTART_SAMPLES:
                    _log.warning("a sentence was cut after %.1f s", samples / DOWNLINK_RATE_HZ)
                    return
        raise VoiceError("; ".join(errors))

    async def warm(self) -> None:
        """Warm all voices at once; those that cannot be reached are skipped for a while.

        Raises:
            VoiceError: none of them is ready.
        """
        outcomes = await asyncio.gather(*(voice.warm() for voice in self._voices), return_exceptions=True)
        errors: list[str] = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, VoiceError):
                self._failed(index, outcome)
                errors.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        if len(errors) == len(self._voices):
            raise VoiceError("; ".join(errors))

    async def close(self) -> None:
        """Close all voices."""
        for voice in self._voices:
            await voice.close()

    async def _attempt(self, voice: Voice, text: str, language: str) -> AsyncGenerator[PcmInt, None]:
        """One voice's try, from its first audible sound."""
        async with aclosing(voice.speak(text, language=language)) as pieces:
            async with self._slots:
                pcm = await self._first_sound(voice, pieces)
            while True:
                yield pcm
                try:
                    async with asyncio.timeout(self._idle_timeout_s):
                        pcm = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise VoiceError(f"{voice.name}: went silent for {self._idle_timeout_s:g} s") from error

    async def _first_sound(self, voice: Voice, pieces: AsyncGenerator[PcmInt, None]) -> PcmInt:
        lead: PcmInt = np.empty(0, np.int16)
        try:
            async with asyncio.timeout(self._first_audio_timeout_s):
                async for pcm in pieces:
                    audible = np.flatnonzero(np.abs(pcm.astype(np.int32)) >= _AUDIBLE)
                    lead = np.concatenate([lead, pcm])
                    if len(audible):
                        onset = len(lead) - len(pcm) + int(audible[0])
                        return lead[max(0, onset - _KEPT_LEAD_SAMPLES) :]
                    lead = lead[-_KEPT_LEAD_SAMPLES:]
        except TimeoutError as error:
            raise VoiceError(f"{voice.name}: no sound within {self._first_audio_timeout_s:g} s") from error
        raise VoiceError(f"{voice.name}: sent only silence")

    def _spoke(self, index: int) -> None:
        if self._preference.spoke(index):
            _log.info("voice %s is back", self._voices[index].name)

    def _failed(self, index: int, error: VoiceError) -> None:
        state = self._preference.states[index]
        now = self._clock()
        if self._preference.failed(index, now, str(error)):
            _log.warning("voice passed over for %.0f s: %s", state.skipped_until - now, error)


class _Overheard:
    """A chain's voices on behalf of one listener; warming and closing are the chain's own business."""

    def __init__(self, chain: VoiceChain, on_voice: Callable[[str], None]) -> None:
        self.name = chain.name
        self._chain = chain
        self._on_voice = on_voice

    def speak(self, text: str, *, language: str) -> AsyncGenerator[PcmInt, None]:
        """Speak, and tell who does."""
        return self._chain.speak(text, language=language, on_voice=self._on_voice)

    async def warm(self) -> None:
        """Warm the chain."""
        await self._chain.warm()

    async def close(self) -> None:
        """Leave the chain open: it serves everybody."""
