"""What a voice is: text goes in as it comes, sound comes out as early as it exists."""

import asyncio
import math
from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from xiaozhi.audio.pcm import PcmInt
from xiaozhi.settings import TtsSettings
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest


class VoiceError(Exception):
    """A voice could not speak; one line saying which engine and why."""


class TextRefused(VoiceError):
    """A voice is well, and has nothing to say to this one text: other texts may fare better."""


@dataclass(frozen=True, slots=True)
class Mark:
    """All sound of this text of a session has come; texts are counted from 0, in the order they were sent."""

    text: int


Spoken: TypeAlias = PcmInt | Mark
"""int16[n] mono at 24 kHz (`DOWNLINK_RATE_HZ`), n of any size; or where the sound of a text ends."""


class VoiceSession(Protocol):
    """Texts of one reply, spoken in their order by one voice. One task sends, one reads `sound`."""

    async def send(self, text: str, language: str) -> None:
        """Speak this behind what was sent before. Waits only for the service to take it, never for sound.

        Args:
            text: cleaned for speech.
            language: `zh`, `en` …, picks among the engine's voices.

        Raises:
            VoiceError: refused, or the connection broke.
        """
        ...

    async def end(self) -> None:
        """No further text comes: `sound` ends behind the last one.

        Raises:
            VoiceError: the connection broke.
        """
        ...

    def sound(self) -> AsyncGenerator[Spoken, None]:
        """Yield the sound of each text, as early as it exists, and then its mark. Called once.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not audio.
        """
        ...

    async def cancel(self) -> None:
        """Stop at once, whatever is under way; sound that comes late is nobody's. Harmless after the end."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceContext:
    """What a voice is built from.

    Attributes:
        own: the engine's own table, of the class that the engine is registered with.
        settings: the `[tts]` table.
        models_dir: `dir` of the `[models]` table.
    """

    own: Any
    settings: TtsSettings
    models_dir: Path


class Voice(Protocol):
    """Speaks. One object serves every conversation. What an engine says nothing about is as it is here.

    Attributes:
        name: of the engine, as in `tts.engines`.
        about: a few words for the start-up banner, to stand behind the name.
        spans_clauses: a session takes the clauses of a whole reply and marks where the sound of each ends; otherwise
            each clause gets a session of its own, several at once.
        warm_s: how long what `warm` opens, or a sentence has used, stays open: a turn that begins later has it opened
            again at its soft end, 0 for every turn (a connection serves one text). Infinite where there is nothing to
            open.
    """

    name: str = ""
    about: str = ""
    spans_clauses: bool = False
    warm_s: float = math.inf

    @classmethod
    def build(cls, context: VoiceContext) -> "Voice":
        """Build the engine from settings: from its own table and the longest silence of a connection in seconds.

        Raises:
            VoiceError: it cannot be used; one line with what to do.
        """
        return cls(context.own, context.settings.idle_timeout_s)  # type: ignore[call-arg]  # engines take these two

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """Begin to speak as `request` asks, as far as the engine can. Cheap; connections are opened when text comes."""
        ...

    async def warm(self) -> None:
        """Open what can be opened ahead.

        Raises:
            VoiceError: the engine cannot be reached now; the caller skips it for a while.
        """
        return

    async def close(self) -> None:
        """Close connections and free libraries."""
        return


class ClauseVoice(Voice):
    """A voice that speaks whole texts, each for itself: the base of such engines, which have to write `speak` alone."""

    @abstractmethod
    def speak(self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound of a text, in pieces of any size; closing the iterator closes the upstream request at once.

        Raises:
            VoiceError: as for `VoiceSession.sound`.
        """

    def open(self, request: VoiceRequest = ANY_VOICE) -> VoiceSession:
        """Texts one after the other."""
        return _ClauseSession(self, request)


class _ClauseSession:
    def __init__(self, voice: ClauseVoice, request: VoiceRequest) -> None:
        self._voice, self._request = voice, request
        self._texts: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

    async def send(self, text: str, language: str) -> None:
        self._texts.put_nowait((text, language))

    async def end(self) -> None:
        self._texts.put_nowait(None)

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        number = 0
        while (item := await self._texts.get()) is not None:
            async with aclosing(self._voice.speak(item[0], language=item[1], request=self._request)) as pieces:
                async for pcm in pieces:
                    yield pcm
            yield Mark(number)
            number += 1

    async def cancel(self) -> None:
        self._texts.put_nowait(None)  # whoever reads closes `sound`, and with it what is under way
