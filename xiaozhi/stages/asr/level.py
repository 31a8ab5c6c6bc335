"""Bringing quiet speech to the level a model was trained on, as it arrives."""

from typing import Final

import numpy as np

from xiaozhi.audio.pcm import PcmFloat

# Measured with the English streaming zipformer, word errors over 17 recordings without and with this gain: as recorded
# 15.7 and 11.4 %, at a tenth of the amplitude 28.6 and 11.4 %, at three hundredths 41.6 and 16.2 %. Mandarin changes
# likewise. Targets of 0.2 to 0.5 and limits of 8 to 30 differ little.
_TARGET_PEAK: Final = 0.3
_MAX_GAIN: Final = 30.0


class RunningGain:
    """Raises an utterance so that its loudest sample so far is at 0.3; never lowers it, never by more than 30 dB.

    The gain only ever falls within an utterance, when something louder comes.
    """

    def __init__(self) -> None:
        self._peak = _TARGET_PEAK / _MAX_GAIN

    def apply(self, pcm: PcmFloat) -> PcmFloat:
        """The next piece, float32[n], raised."""
        if len(pcm):
            self._peak = max(self._peak, float(np.abs(pcm).max()))
        raised: PcmFloat = pcm * np.float32(max(1.0, _TARGET_PEAK / self._peak))
        return raised
