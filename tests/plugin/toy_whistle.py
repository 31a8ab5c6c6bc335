"""A toy voice: this file and its settings are all there is."""

from collections.abc import AsyncGenerator

import numpy as np
from toy_settings import WhistleSettings  # type: ignore[import-not-found]  # it is installed where this is

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.stages.tts.engine import ClauseVoice
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, closest


class Whistle(ClauseVoice):
    """Whistles for as long as a text is."""

    name = "whistle"

    def __init__(self, settings: WhistleSettings, timeout_s: float) -> None:
        self._settings = settings
        self.about = f"at {settings.pitch_hz} Hz"

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield a tone, an octave higher for the voice `high`."""
        hz = self._settings.pitch_hz * (2 if closest(self.name, request, language, "") == "high" else 1)
        times = np.arange(DOWNLINK_RATE_HZ * len(text) // 10) / DOWNLINK_RATE_HZ
        yield (8000 * np.sin(2 * np.pi * hz * times)).astype(np.int16)
