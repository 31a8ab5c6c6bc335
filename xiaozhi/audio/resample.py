"""Any sample rate to the house's downlink rate, piece by piece."""

import numpy as np

from xiaozhi.audio.libav import av
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmFloat, PcmInt


class StreamResampler:
    """Resamples one mono stream to int16 at another rate, keeping its state between pieces.

    Output lags the input by under 2 ms until `flush`. A second of sound costs well under a millisecond, so it may run
    on the event loop.

    Args:
        from_hz: rate of the input.
        to_hz: rate of the output.
    """

    def __init__(self, from_hz: int, to_hz: int = DOWNLINK_RATE_HZ) -> None:
        if from_hz < 1 or to_hz < 1:
            raise ValueError("sample rates must be positive")
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._resampler: av.AudioResampler | None = None
        self._format = ""

    def feed(self, pcm: PcmInt | PcmFloat) -> PcmInt:
        """Resample int16[n] or float32[n] (one kind for the whole stream) and return what is complete."""
        if not len(pcm):
            return np.empty(0, np.int16)
        if pcm.dtype == np.int16 and self.from_hz == self.to_hz:
            return pcm.astype(np.int16, copy=False)
        if self._resampler is None:
            self._format = "s16" if pcm.dtype == np.int16 else "flt"
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=self.to_hz)
        frame = av.AudioFrame(format=self._format, layout="mono", samples=len(pcm))
        frame.sample_rate = self.from_hz
        frame.planes[0].update(pcm.tobytes())
        return _joined(self._resampler.resample(frame))

    def flush(self) -> PcmInt:
        """Return what was still inside. The stream has ended."""
        if self._resampler is None:
            return np.empty(0, np.int16)
        resampler, self._resampler = self._resampler, None
        return _joined(resampler.resample(None))


def _joined(frames: list[av.AudioFrame]) -> PcmInt:
    pieces: list[PcmInt] = [frame.to_ndarray()[0] for frame in frames]
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int16)
