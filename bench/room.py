"""A room in software: a device's microphone that hears its loudspeaker, a little noise, and whoever talks."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Final

import numpy as np

from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.audio.wav import read_wav
from xiaozhi.client.microphone import MicFrame
from xiaozhi.client.speaker import HeardPacket, Speaker

_FRAME_MS: Final = 60
_FRAME: Final = UPLINK_RATE_HZ * _FRAME_MS // 1000
_PER_MS: Final = UPLINK_RATE_HZ // 1000
_NOISE_RMS: Final = 10.0 ** (-70.0 / 20.0)
_MAX_RESPONSE: Final = UPLINK_RATE_HZ // 4
# A loop that was held up reads late: the microphone's clock is its own.
_MAX_LATE_MS: Final = 500.0


def made_up_room(seconds: float = 0.25) -> PcmFloat:
    """A decaying response of unit power, float32[n] at 16 kHz."""
    dice = np.random.default_rng(3)
    decay = np.exp(-6.9 * np.arange(int(seconds * UPLINK_RATE_HZ)) / (seconds * UPLINK_RATE_HZ))
    response = dice.normal(0.0, 0.1, len(decay)) * decay
    response[0] = 1.0
    return _of_unit_power(response)


def read_room(path: Path) -> PcmFloat:
    """A recorded response from its loudest sample on, of unit power, float32[n] at 16 kHz."""
    response = read_wav(path)
    loudest = int(np.argmax(np.abs(response)))
    return _of_unit_power(response[max(0, loudest - 8) : loudest + _MAX_RESPONSE])


def _of_unit_power(response: PcmFloat) -> PcmFloat:
    scaled: PcmFloat = (response / np.sqrt(np.sum(response**2))).astype(np.float32)
    return scaled


class RoomMicrophone:
    """The microphone of a device in a room, sample by sample in time with its loudspeaker.

    Args:
        echo_db: how much quieter than digital it hears what is played; None for not at all.
        delay_ms: from the loudspeaker to the microphone, buffers included.
        response: of loudspeaker and room, of unit power; one that is made up unless given.
        clips_at: where the loudspeaker bends, as share of full scale; None for never.
    """

    frame_ms = _FRAME_MS

    def __init__(
        self,
        echo_db: float | None,
        delay_ms: float = 120.0,
        response: PcmFloat | None = None,
        clips_at: float | None = None,
    ) -> None:
        self._gain = np.float32(0.0 if echo_db is None else 10.0 ** (echo_db / 20.0))
        self._response = made_up_room() if response is None else response
        self._clips_at = clips_at
        self._delay = round(delay_ms * _PER_MS)
        self._encoder = OpusEncoder(UPLINK_RATE_HZ, _FRAME_MS, 16_000, 0)
        self._decoder = OpusDecoder(UPLINK_RATE_HZ)
        self._speaker: Speaker | None = None
        self._decoded: deque[tuple[float, PcmFloat]] = deque(maxlen=4)  # when it began to sound
        self._before = np.zeros(self._delay + len(self._response) - 1, np.float32)
        self._said = np.zeros(0, np.float32)
        self._dice = np.random.default_rng(3)
        self._until_ms = 0.0

    def hears(self, speaker: Speaker) -> None:
        """It is in the room of this loudspeaker."""
        self._speaker = speaker

    def talk(self, pcm: PcmFloat) -> None:
        """Somebody says this now: float32[n] at 16 kHz."""
        self._said = pcm

    @property
    def silent(self) -> bool:
        """Nobody is talking."""
        return not len(self._said)

    def read(self) -> MicFrame:
        """What was heard in the last 60 ms."""
        now_ms = asyncio.get_running_loop().time() * 1000.0
        self._until_ms += _FRAME_MS
        if abs(now_ms - self._until_ms) > _MAX_LATE_MS:
            self._until_ms = now_ms
        around = np.concatenate([self._before, self._played()])
        self._before = around[_FRAME:]
        near = around[: len(around) - self._delay]
        echo = np.convolve(near, self._response, "valid")[-_FRAME:] * self._gain
        said, self._said = self._said[:_FRAME], self._said[_FRAME:]
        heard = echo + self._dice.normal(0.0, _NOISE_RMS, _FRAME)
        heard[: len(said)] += said
        (opus,) = self._encoder.encode(to_int16(np.clip(heard, -1.0, 1.0).astype(np.float32)))
        return MicFrame(opus)

    def shut(self) -> float:
        """Nothing is lost that anybody counts."""
        return 0.0

    def _played(self) -> PcmFloat:
        """What came out of the loudspeaker in this frame."""
        sound = np.zeros(_FRAME, np.float32)
        if self._speaker is None:
            return sound
        self._speaker.advance(self._until_ms)
        from_ms = self._until_ms - _FRAME_MS
        now = [self._speaker.playing] if self._speaker.playing is not None else []
        for packet in [*self._speaker.playback.heard[-4:], *now]:
            if packet.at_ms < self._until_ms and packet.at_ms + packet.heard_ms > from_ms:
                pcm = self._sound_of(packet)[: round(packet.heard_ms * _PER_MS)]
                at = round((packet.at_ms - from_ms) * _PER_MS)
                first, last = max(0, at), min(_FRAME, at + len(pcm))
                sound[first:last] += pcm[first - at : last - at]
        if self._clips_at is not None:
            sound = (np.tanh(sound / self._clips_at) * self._clips_at).astype(np.float32)
        return sound

    def _sound_of(self, packet: HeardPacket) -> PcmFloat:
        known = next((pcm for at_ms, pcm in self._decoded if at_ms == packet.at_ms), None)
        if known is None:
            known = self._decoder.decode(packet.packet)
            self._decoded.append((packet.at_ms, known))
        return known
