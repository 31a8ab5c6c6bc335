"""What a voice is."""

from collections.abc import AsyncGenerator
from typing import Protocol

from xiaozhi.audio.pcm import PcmInt
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest


class VoiceError(Exception):
    """A voice could not speak; one line saying which engine and why."""


class TextRefused(VoiceError):
    """A voice is well, and has nothing to say to this one text: other texts may fare better."""


class Voice(Protocol):
    """Speaks. One object serves every conversation."""

    name: str

    def speak(self, text: str, *, language: str, wish: VoiceRequest = ANY_VOICE) -> AsyncGenerator[PcmInt, None]:
        """Yield int16[n] mono at 24 kHz (`DOWNLINK_RATE_HZ`) in pieces of any size, as early as they exist.

        `text` is already cleaned for speech. `language` (`zh`, `en` …) picks among the engine's voices, and so
        does `wish`, as far as the engine can. Closing the iterator closes the upstream request at once.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not audio.
        """
        ...

    async def warm(self) -> None:
        """Open what can be opened ahead.

        Raises:
            VoiceError: the engine cannot be reached now; the caller skips it for a while.
        """
        ...

    async def close(self) -> None:
        """Close connections and free libraries."""
        ...
