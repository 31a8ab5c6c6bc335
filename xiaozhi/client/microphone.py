"""The device's microphone: encoded speech that was prepared once, silence in between, or a live source; and its clock.

Encoding is kept out of the uplink's path so that a hundred devices in one process share one encoded recording.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import numpy as np

from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt, duration_ms

# A sample is voiced when its 10 ms are louder than the loudest 10 ms of the recording less this.
VOICED_BELOW_PEAK_DB: Final = 45.0
_VOICE_STEP_MS: Final = 10

# The firmware encodes at complexity 0 with an automatic bitrate; observed: 80 to 130 bytes for 60 ms.
_BITRATE_BPS: Final = 16_000
_COMPLEXITY: Final = 0

# Firmware: the send queue holds 40 packets and forgets the oldest.
UPLINK_QUEUE_PACKETS: Final = 40
# A loop that was held up sends what it missed, but no more than the firmware's queues would have kept.
_MAX_AT_ONCE: Final = 42


def last_voiced_ms(pcm: PcmInt) -> float:
    """Where speech ends in int16[n] at 16 kHz: the end of the last 10 ms above -45 dB of the loudest 10 ms.

    Loudness is the mean power of 10 ms. 0 for digital silence. In a recording whose noise is less than 45 dB below the
    voice this is the end of the recording, which flatters a latency measured from it.
    """
    step = UPLINK_RATE_HZ * _VOICE_STEP_MS // 1000
    padded = np.zeros(-(-len(pcm) // step) * step, np.float64)
    padded[: len(pcm)] = pcm
    power = (padded.reshape(-1, step) ** 2).mean(axis=1)
    if not len(power) or power.max() == 0.0:
        return 0.0
    voiced = np.flatnonzero(power > power.max() * 10.0 ** (-VOICED_BELOW_PEAK_DB / 10.0))
    return min(float(voiced[-1] + 1) * _VOICE_STEP_MS, duration_ms(len(pcm), UPLINK_RATE_HZ))


def _encoder(frame_ms: int) -> OpusEncoder:
    return OpusEncoder(UPLINK_RATE_HZ, frame_ms, _BITRATE_BPS, _COMPLEXITY)


@dataclass(frozen=True, slots=True)
class SpokenUtterance:
    """Speech as packets, ready to be sent by any number of devices.

    Attributes:
        packets: Opus, 16 kHz mono, `frame_ms` each; the last is filled up with silence.
        voiced_ms: where speech ends, see `last_voiced_ms`.
        duration_ms: length of the recording.
    """

    packets: tuple[bytes, ...]
    frame_ms: int
    voiced_ms: float
    duration_ms: float

    @classmethod
    def encode(cls, pcm: PcmInt, frame_ms: int = 60, voiced_ms: float | None = None) -> "SpokenUtterance":
        """Encode int16[n] at 16 kHz. Blocking: some 2 ms for a second of speech.

        Args:
            pcm: the recording.
            frame_ms: length of a packet.
            voiced_ms: where speech ends, where that is known better than `last_voiced_ms` can tell (noisy recordings).

        Raises:
            ValueError: no samples.
        """
        if not len(pcm):
            raise ValueError("an utterance needs samples")
        encoder = _encoder(frame_ms)
        packets = (*encoder.encode(pcm), *encoder.flush())
        voiced_ms = last_voiced_ms(pcm) if voiced_ms is None else voiced_ms
        return cls(packets, frame_ms, voiced_ms, duration_ms(len(pcm), UPLINK_RATE_HZ))


@lru_cache(maxsize=8)
def silence_packet(frame_ms: int) -> bytes:
    """Digital silence as the encoder gives it once it has settled."""
    return _encoder(frame_ms).encode(np.zeros(UPLINK_RATE_HZ * frame_ms // 1000 * 10, np.int16))[-1]


@dataclass(frozen=True, slots=True)
class MicFrame:
    """One packet; `voiced_before_end_ms` is how long before its end speech ended, None when that is not in it."""

    opus: bytes
    voiced_before_end_ms: float | None = None


class Microphone(Protocol):
    """A source of packets, read once for every `frame_ms` that the microphone is open."""

    frame_ms: int

    def read(self) -> MicFrame | None:
        """The next packet; None when there is none yet."""
        ...

    def shut(self) -> float:
        """The microphone has been shut: what is being said is lost. How much speech that was, in milliseconds."""
        ...


class SpeechMicrophone:
    """Says utterances one after the other and gives silence when there is nothing to say."""

    def __init__(self, frame_ms: int = 60) -> None:
        self.frame_ms = frame_ms
        self._silence = MicFrame(silence_packet(frame_ms))
        self._waiting: deque[SpokenUtterance] = deque()
        self._saying: SpokenUtterance | None = None
        self._position = 0

    def say(self, utterance: SpokenUtterance) -> None:
        """Say this next; while the microphone is shut, the user waits.

        Raises:
            ValueError: its packets are of another length than this microphone's.
        """
        if utterance.frame_ms != self.frame_ms:
            raise ValueError(f"packets of {utterance.frame_ms} ms in a microphone of {self.frame_ms} ms")
        self._waiting.append(utterance)

    @property
    def silent(self) -> bool:
        """Nothing left to say."""
        return self._saying is None and not self._waiting

    def read(self) -> MicFrame:
        """The next packet of what is being said, or silence."""
        if self._saying is None and self._waiting:
            self._saying, self._position = self._waiting.popleft(), 0
        utterance = self._saying
        if utterance is None:
            return self._silence
        begins_ms = self._position * self.frame_ms
        opus = utterance.packets[self._position]
        self._position += 1
        if self._position == len(utterance.packets):
            self._saying = None
        ends_ms = begins_ms + self.frame_ms
        holds_the_end = begins_ms < utterance.voiced_ms <= ends_ms
        return MicFrame(opus, ends_ms - utterance.voiced_ms if holds_the_end else None)

    def shut(self) -> float:
        """Lose the rest of what is being said; what has not been begun is said when the microphone opens again."""
        utterance, self._saying = self._saying, None
        return 0.0 if utterance is None else max(0.0, utterance.voiced_ms - self._position * self.frame_ms)


class LiveMicrophone:
    """Encodes what a sound card delivers; packets that nobody fetches are forgotten, oldest first."""

    def __init__(self, frame_ms: int = 60) -> None:
        self.frame_ms = frame_ms
        self._encoder = _encoder(frame_ms)
        self._rest: PcmInt = np.empty(0, np.int16)
        self._frames: deque[MicFrame] = deque(maxlen=UPLINK_QUEUE_PACKETS)
        self._loudest = 0.0

    def feed(self, pcm: PcmInt) -> None:
        """Samples from the sound card, int16[n] at 16 kHz."""
        pcm = np.concatenate([self._rest, pcm])
        size = self._encoder.frame_samples
        while len(pcm) >= size:
            frame, pcm = pcm[:size], pcm[size:]
            (opus,) = self._encoder.encode(frame)
            self._frames.append(MicFrame(opus, self._voiced_before_end_ms(frame)))
        self._rest = pcm

    def read(self) -> MicFrame | None:
        """The oldest packet that waits."""
        return self._frames.popleft() if self._frames else None

    def shut(self) -> float:
        """Forget what waits; what was lost of a live voice is not known."""
        self._frames.clear()
        return 0.0

    def _voiced_before_end_ms(self, frame: PcmInt) -> float | None:
        """Speech in this frame by the loudest frame so far: a live voice cannot be measured against its end."""
        power = float((frame.astype(np.float64) ** 2).mean())
        self._loudest = max(self._loudest, power)
        # A live microphone hums: 45 dB below the voice would call its noise speech.
        if power <= self._loudest * 10.0**-2.5:
            return None
        return self.frame_ms - last_voiced_ms(frame)


class Uplink:
    """Reads the microphone in its own time and hands packets on.

    Times are milliseconds on the loop's clock. A packet leaves when its last sample has been recorded.

    Args:
        microphone: what is read.
        speed: the microphone's clock against real time.
        send: takes each packet.
        voiced: told when the last voiced sample, as far as known, was spoken.
    """

    def __init__(
        self, microphone: Microphone, speed: float, send: Callable[[bytes], None], voiced: Callable[[float], None]
    ) -> None:
        if not 0.0 < speed <= 1000.0:
            raise ValueError("speed must lie above 0 and not above 1000")
        self._microphone = microphone
        self._speed = speed
        self._frame_ms = microphone.frame_ms / speed
        self._send = send
        self._voiced = voiced
        self._from_ms: float | None = None
        self._next_ms = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, from_ms: float | None) -> float:
        """The microphone gives samples from this time on, or is shut (None).

        Returns:
            How much speech was lost because somebody was speaking into it when it was shut, in milliseconds.
        """
        if from_ms == self._from_ms:
            return 0.0
        lost_ms = self._microphone.shut() if self._from_ms is not None else 0.0
        self._from_ms = from_ms
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if from_ms is not None:
            self._next_ms = from_ms + self._frame_ms
            self._arm()
        return lost_ms

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._next_ms / 1000.0, self._tick)

    def _tick(self) -> None:
        # Timers may fire a little early; the packet they were set for is due all the same.
        now_ms = max(asyncio.get_running_loop().time() * 1000.0, self._next_ms)
        missed = int((now_ms - self._next_ms) / self._frame_ms) + 1 - _MAX_AT_ONCE
        if missed > 0:
            self._next_ms += missed * self._frame_ms
        while self._next_ms <= now_ms:
            frame = self._microphone.read()
            if frame is not None:
                self._send(frame.opus)
                if frame.voiced_before_end_ms is not None:
                    self._voiced(self._next_ms - frame.voiced_before_end_ms / self._speed)
            self._next_ms += self._frame_ms
        self._arm()
