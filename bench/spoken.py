"""What devices say in benches that are given no recordings."""

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmInt
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.settings import EspeakVoiceSettings
from xiaozhi.stages.tts.espeak import say


def spoken(text: str, language: str = "zh") -> PcmInt:
    """The text by the embedded voice, as a microphone hears it: int16[n] at 16 kHz. Blocking."""
    resampler = StreamResampler(DOWNLINK_RATE_HZ, UPLINK_RATE_HZ)
    return np.concatenate([resampler.feed(say(text, language, EspeakVoiceSettings())), resampler.flush()])
