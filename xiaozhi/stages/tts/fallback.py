"""A voice made of several: the best that works speaks, and a device is never left without one."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from copy import copy
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.stages.tts.engine import TextRefused, Voice, VoiceError
from xiaozhi.stages.tts.preference import EngineState, Preference
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.text.units import longest_speech_s
from xiaozhi.upstream.breaker import Admission, Breaker
from xiaozhi.upstream.slots import PrioritySlots

_log = logging.getLogger(__name__)

# -54 dBFS: below the quietest speech sound, above the dither of decoded MP3.
_AUDIBLE: Final = 64
# Services begin with up to 0.2 s of nothing; the listener need not wait for it. What is kept softens the onset.
_KEPT_LEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 20 // 1000
# A sentence that broke off after less than this is begun anew by the next engine; after more, a repetition would be
# worse than the missing end.
_RESTART_SAMPLES: Final = DOWNLINK_RATE_HZ * 300 // 1000
# Connections that are being opened ahead at the same time.
_MAX_EXPECTING: Final = 8


class VoiceChain:
    """Tries voices in order of preference, each sentence anew.

    A voice that fails, is silent, takes too long or does not end is passed over for the same sentence and skipped for a
    while; then one sentence tries it for all. The silence before the first sound is cut.

    Args:
        voices: best first.
        first_audio_timeout_s: longest wait for the first audible sound of a sentence.
        idle_timeout_s: longest wait for each further piece.
        retry_after_s: how long a voice that failed is skipped.
        clock: monotonic time in seconds.
        max_concurrent: sentences that may wait for their first sound at once, over all conversations.
        failures: after so many in a row a voice is skipped.
    """

    def __init__(
        self,
        voices: Sequence[Voice],
        first_audio_timeout_s: float,
        idle_timeout_s: float,
        retry_after_s: float,
        clock: Callable[[], float],
        max_concurrent: int = 40,
        failures: int = 1,
    ) -> None:
        self.name = "+".join(voice.name for voice in voices)
        self._voices = tuple(voices)
        self._open_at: dict[int, float] = {}  # when the connection of a voice was opened or used last
        self._expecting = 0
        self._first_audio_timeout_s = first_audio_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._preference = Preference([voice.name for voice in voices], retry_after_s, failures)
        self.slots = PrioritySlots(max_concurrent)
        """Who may ask a voice now: first sentences of replies before others."""

    @property
    def states(self) -> tuple[EngineState, ...]:
        """How each voice has done, best first."""
        return self._preference.states

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """Which voices are left alone for a while, best first."""
        return self._preference.breakers

    def voice(self, name: str) -> Voice | None:
        """One of the voices; None where it is none of these."""
        return next((voice for voice in self._voices if voice.name == name), None)

    def led_by(self, voice: Voice) -> "VoiceChain":
        """This voice first and the others behind it, with the same places for all."""
        chain = copy(self)
        chain._voices = (voice, *(one for one in self._voices if one.name != voice.name))
        before = self._preference
        names = [one.name for one in chain._voices]
        chain._preference = Preference(names, before.retry_after_s, before.failures)
        chain.name = "+".join(names)
        return chain

    def first_in_line(self) -> str:
        """The voice that a sentence would be tried with first now."""
        return self._voices[self._preference.first(self._clock())].name

    def first_spans_clauses(self) -> bool:
        """Whether that voice has one session for all clauses of a reply."""
        return self._voices[self._preference.first(self._clock())].spans_clauses

    async def speak(
        self,
        text: str,
        *,
        language: str,
        part: ReplyPart | None = None,
        urgent: bool = False,
        on_voice: Callable[[str], None] | None = None,
        on_cut: Callable[[], None] | None = None,
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the clause by the best voice that works; nothing when there is nothing to say.

        Args:
            text: cleaned for speech.
            language: of the text.
            part: its place in a reply, which says how it should sound; None for a text that stands alone.
            urgent: goes first when voices are scarce.
            on_voice: gets the name of each voice that begins to speak it.
            on_cut: called when its end is missing.

        Raises:
            VoiceError: no voice could speak.
        """
        part = part or ReplyPart(ReplyVoices())
        if not any(char.isalnum() for char in text):
            return  # marks alone: every engine would be silent, and none would be to blame
        errors: list[str] = []
        for index in range(len(self._voices)):
            admission = self._preference.admit(index, self._clock())
            if admission is Admission.REFUSED:
                continue
            samples = 0
            pending: Admission | None = admission  # until its outcome is known
            try:
                async with aclosing(self._attempt(self._voices[index], text, language, part, urgent=urgent)) as pieces:
                    async for pcm in pieces:
                        if pending is not None:
                            pending = None
                            self._spoke(index, admission)
                        if not samples and on_voice is not None:
                            on_voice(self._voices[index].name)
                        samples += len(pcm)
                        yield pcm
                return
            except Exception as error:  # noqa: BLE001 - whatever a voice's library does, another one speaks
                failure = self._failure(index, error)
                # After its first sound it was no probe any more: the breaker has closed.
                self._failed(index, pending or Admission.ADMITTED, failure, text)
                pending = None
                errors.append(str(failure))
                if samples >= _RESTART_SAMPLES:
                    _log.warning("a sentence was cut after %.1f s", samples / DOWNLINK_RATE_HZ)
                    if on_cut is not None:
                        on_cut()
                    return
            finally:
                if pending is not None:
                    self._preference.dropped(index, pending, self._clock())
        raise VoiceError("; ".join(errors))

    async def expect_text(self) -> None:
        """A text will come soon, perhaps: have the connection open that the voice in line speaks it over.

        One that was opened or used lately is open; a failure is none, as who speaks will find out.
        """
        index = self._preference.first(self._clock())
        voice, now_s = self._voices[index], self._clock()
        if now_s - self._open_at.get(index, -math.inf) < voice.warm_s or self._expecting >= _MAX_EXPECTING:
            return
        self._expecting += 1
        self._open_at[index] = now_s
        try:
            async with asyncio.timeout(self._first_audio_timeout_s):
                await voice.warm()
        except Exception as error:  # noqa: BLE001 - whatever a voice's library does
            _log.debug("no connection was opened ahead: %s", self._failure(index, error))
        finally:
            self._expecting -= 1

    async def warm(self) -> None:
        """Warm all voices at once; those that cannot be reached are skipped for a while.

        Raises:
            VoiceError: none of them is ready.
        """
        outcomes = await asyncio.gather(*(voice.warm() for voice in self._voices), return_exceptions=True)
        errors: list[str] = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failure = self._failure(index, outcome)
                if self._preference.unreachable(index, self._clock(), str(failure)):
                    self._tell(failure)
                errors.append(str(failure))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self._open_at[index] = self._clock()
        if len(errors) == len(self._voices):
            raise VoiceError("; ".join(errors))

    async def close(self) -> None:
        """Close all voices."""
        for voice in self._voices:
            await voice.close()

    async def _attempt(
        self, voice: Voice, text: str, language: str, part: ReplyPart, *, urgent: bool
    ) -> AsyncGenerator[PcmInt, None]:
        """One voice's try, from its first audible sound, for as long as the text can take."""
        loop = asyncio.get_running_loop()
        max_s = longest_speech_s(text)
        left, patience_s = round(max_s * DOWNLINK_RATE_HZ), max_s
        async with aclosing(await part.begin(voice, text, language)) as pieces:
            async with self.slots.hold(urgent=urgent):
                pcm = await self._first_sound(voice, pieces)
            while True:
                yield pcm[:left]
                left -= len(pcm)
                if left < 0 or patience_s < 0.0:
                    raise VoiceError(f"{voice.name}: does not end: over {max_s:.0f} s for {len(text)} characters")
                asked_s = loop.time()
                try:
                    async with asyncio.timeout(self._idle_timeout_s):
                        pcm = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise VoiceError(f"{voice.name}: went silent for {self._idle_timeout_s:g} s") from error
                patience_s -= loop.time() - asked_s

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
        raise TextRefused(f"{voice.name}: sent only silence")

    def _spoke(self, index: int, admission: Admission) -> None:
        self._open_at[index] = self._clock()
        if self._preference.spoke(index, admission, self._clock()):
            _log.info("voice %s is back", self._voices[index].name)

    def _failure(self, index: int, error: Exception) -> VoiceError:
        """What went wrong with a voice, in a line that names it."""
        if isinstance(error, VoiceError):
            return error
        name, kind = self._voices[index].name, type(error).__name__
        _log.debug("%s failed in an unexpected way", name, exc_info=error)
        return VoiceError(f"{name}: {kind}")  # its message may quote what it was given, such as a key

    def _failed(self, index: int, admission: Admission, error: VoiceError, text: str) -> None:
        of_text = text if isinstance(error, TextRefused) else ""
        if self._preference.failed(index, admission, self._clock(), str(error), text=of_text):
            self._tell(error)

    def _tell(self, error: VoiceError) -> None:
        _log.warning("voice passed over for %.0f s: %s", self._preference.retry_after_s, error)
