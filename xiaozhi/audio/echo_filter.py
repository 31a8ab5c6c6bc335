"""What a loudspeaker adds to a microphone, learnt and taken off: a partitioned frequency-domain Kalman filter. Pure.

The filter says for every frequency how what was played in the last half second is heard; its own doubt about that
(Kalman's covariance) sets how fast it learns. What it cannot explain is what somebody says, and what is left of the
echo; a gain for each frequency lowers the second where the echo was loud (residual gain).

G. Enzner, P. Vary: "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free telephones", Signal
Processing 86 (2006); F. Kuech et al.: "State-space architecture of the partitioned-block-based acoustic echo
controller", ICASSP 2014. One partition is made causal per block in turn, as in Speex's alternately updated filter.
"""

from typing import Final

import numpy as np
from numpy.fft import irfft, rfft
from numpy.typing import NDArray

from xiaozhi.audio.pcm import PcmFloat

BLOCK_SAMPLES: Final = 320
"""20 ms at 16 kHz; every Opus packet of a device is a multiple of it."""
PARTITIONS: Final = 28
"""560 ms are explained: up to 400 ms of delay, and a room."""
_BINS: Final = BLOCK_SAMPLES + 1
# How much of the room is still so after a block: a device that is moved is learnt anew within seconds.
_STAYS: Final = np.float32(0.9985**2)
_NOISE_KEEPS: Final = np.float32(0.8)
_TINY: Final = np.float32(1e-9)
# Residual gain: what share of the explained echo is taken for what is still left of it, and how far it may lower.
_LEFT: Final = np.float32(0.25)
_MIN_GAIN: Final = np.float32(0.03)
_RISE: Final = np.linspace(0.0, 1.0, BLOCK_SAMPLES, dtype=np.float32)
_HALF: Final = np.float32(0.5)


class EchoFilter:
    """One device's loudspeaker and room. One call at a time; 350 KB."""

    def __init__(self) -> None:
        self._played: NDArray[np.complex64] = np.zeros((2 * PARTITIONS, _BINS), np.complex64)  # twice round a ring
        self._played_power: NDArray[np.float32] = np.zeros((2 * PARTITIONS, _BINS), np.float32)
        self._newest = 0
        self._far: PcmFloat = np.zeros(2 * BLOCK_SAMPLES, np.float32)
        self._room: NDArray[np.complex64] = np.zeros((PARTITIONS, _BINS), np.complex64)
        self._doubt: NDArray[np.float32] = np.zeros((PARTITIONS, _BINS), np.float32)
        self._noise: NDArray[np.float32] = np.zeros(_BINS, np.float32)
        self._turn = 0  # which partition is made causal next
        self._steps: NDArray[np.float32] = np.empty((PARTITIONS, _BINS), np.float32)
        self._change: NDArray[np.complex64] = np.empty((PARTITIONS, _BINS), np.complex64)
        self._left: NDArray[np.float32] = np.zeros(_BINS, np.float32)
        self._echo: NDArray[np.float32] = np.zeros(_BINS, np.float32)
        self._gain: NDArray[np.float32] = np.ones(_BINS, np.float32)
        self._before: PcmFloat = np.zeros((2, BLOCK_SAMPLES), np.float32)  # residual and echo of the last block

    def forget(self, doubt: float) -> None:
        """Nothing is known of the room.

        Args:
            doubt: what it may be for each partition, as power. With the share of what was played that the microphone
                hears it learns fastest; ten times as much makes the first seconds worse than no filter, a tenth takes
                three times as long (measured, -20 to 0 dB).
        """
        self._room.fill(0.0)
        self._doubt.fill(doubt)

    def hush(self) -> None:
        """Nothing has been played for long: what sounds next follows silence."""
        for buffer in (self._played, self._played_power, self._far, self._left, self._echo, self._before, self._noise):
            buffer.fill(0.0)
        self._gain.fill(1.0)

    def play(self, far: PcmFloat) -> None:
        """This was played, float32[BLOCK_SAMPLES], whether a microphone has heard it or not."""
        self._far[:BLOCK_SAMPLES] = self._far[BLOCK_SAMPLES:]
        self._far[BLOCK_SAMPLES:] = far
        spectrum = rfft(self._far)
        self._newest = (self._newest - 1) % PARTITIONS
        for place in (self._newest, self._newest + PARTITIONS):
            self._played[place] = spectrum
            self._played_power[place] = spectrum.real**2 + spectrum.imag**2

    def hear(self, mic: PcmFloat, *, learn: bool = True) -> tuple[PcmFloat, PcmFloat, PcmFloat]:
        """What was said into a microphone over what was played last.

        Args:
            mic: float32[BLOCK_SAMPLES] at 16 kHz.
            learn: it is certain what was played.

        Returns:
            What is left with the residual gain, what is left without it, and the echo; float32[BLOCK_SAMPLES] each.
        """
        now = slice(self._newest, self._newest + PARTITIONS)
        played = self._played[now]
        np.multiply(played, self._room, out=self._change)
        echo: PcmFloat = irfft(self._change.sum(axis=0))[BLOCK_SAMPLES:].astype(np.float32, copy=False)
        left: PcmFloat = mic - echo
        if learn:
            self._learn(left, played, self._played_power[now])
        return self._lowered(left, echo), left, echo

    def _learn(self, left: PcmFloat, played: NDArray[np.complex64], power: NDArray[np.float32]) -> None:
        error = rfft(np.concatenate([np.zeros(BLOCK_SAMPLES, np.float32), left]))
        self._noise += (1 - _NOISE_KEEPS) * (error.real**2 + error.imag**2 - self._noise)
        steps, change, doubt, room = self._steps, self._change, self._doubt, self._room
        np.multiply(power, doubt, out=steps)
        uncertain = _HALF * steps.sum(axis=0) + self._noise + _TINY
        np.divide(doubt, uncertain, out=steps)
        np.conjugate(played, out=change)
        change *= steps
        change *= _HALF * error
        room += change
        steps *= power
        steps *= np.float32(-0.25) * _STAYS
        steps += _STAYS
        doubt *= steps
        np.conjugate(room, out=change)
        change *= room
        np.multiply(change.real, 1 - _STAYS, out=steps)
        doubt += steps
        self._turn = (self._turn + 1) % PARTITIONS
        causal = irfft(room[self._turn])
        causal[BLOCK_SAMPLES:] = 0.0
        room[self._turn] = rfft(causal)

    def _lowered(self, left: PcmFloat, echo: PcmFloat) -> PcmFloat:
        now = np.stack([left, echo])
        spectra = rfft(np.concatenate([self._before, now], axis=1))
        self._before = now
        powers = spectra.real**2 + spectra.imag**2
        self._left += _HALF * (powers[0] - self._left)
        self._echo += _HALF * (powers[1] - self._echo)
        gain = np.maximum(self._left / (self._left + _LEFT * self._echo + _TINY), _MIN_GAIN)
        both = irfft(np.stack([self._gain * spectra[0], gain * spectra[0]]))[:, BLOCK_SAMPLES:]
        self._gain = gain
        lowered: PcmFloat = both[0] + _RISE * (both[1] - both[0])
        return lowered
