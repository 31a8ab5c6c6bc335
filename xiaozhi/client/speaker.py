"""The device's loudspeaker: a short queue of packets, played at real time. Pure: time is passed in.

It keeps the record of what was really HEARD, which is not what was sent: packets are lost to a full queue, to a device
that is not speaking, to a queue that is cleared. Times are milliseconds on one monotonic clock.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from xiaozhi.audio.opus import OpusDecoder, OpusError
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmFloat

# Firmware 2.4.2: 40 waiting for the decoder, 1 being decoded, 2 decoded, 1 at the output. Observed: a burst of 6 s in
# 60 ms packets is heard for exactly 44 packets, 2.64 s.
FIRMWARE_QUEUE_PACKETS: Final = 44
# Builds since August 2026 have room for 20 before the decoder.
NEW_QUEUE_PACKETS: Final = 24

# Firmware: of the timestamps that wait for a packet of the microphone, one is thrown away where there are more.
_MAX_TIMESTAMPS: Final = 3

# py-xiaozhi 2.1.1: decoded audio waits in a buffer of 10 s that forgets its oldest part.
DESKTOP_QUEUE_MS: Final = 10_000.0


class LossReason(StrEnum):
    """Why a packet was not heard."""

    NOT_SPEAKING = "not speaking"
    """Arrived while the device was not in speaking, or before it had got round to `tts/start`."""
    QUEUE_FULL = "queue full"
    CLEARED_BY_START = "cleared by start"
    """Was queued when the device entered speaking."""
    CLEARED_BY_STOP = "cleared by stop"
    """Was queued when the device went back to listening without playing out."""
    TOO_LONG = "longer than declared"
    """Sounds longer than the `frame_duration` of the server's hello: the firmware's decoder refuses it."""
    MALFORMED = "malformed"
    """Not what its framing says, or empty."""


@dataclass(frozen=True, slots=True)
class HeardPacket:
    """A packet that was played from `at_ms` on, for `heard_ms`; shorter than the packet where the queue was cleared."""

    at_ms: float
    packet: bytes
    heard_ms: float


@dataclass(frozen=True, slots=True)
class _Queued:
    packet: bytes
    duration_ms: float
    timestamp_ms: int


@dataclass(slots=True)
class Playback:
    """What came out of the loudspeaker since the record was begun.

    Attributes:
        heard: every packet played, in order.
        received: packets that arrived, heard or not.
        dropped: packets not heard, by reason.
        starved_count, starved_ms: how often and how long there was nothing to play after the first packet of a reply
            although more was to come.
        lead_max_ms: the most audio that ever waited, the rest of the packet being played included. It is how long an
            interrupted device goes on speaking.
    """

    heard: list[HeardPacket] = field(default_factory=list)
    received: int = 0
    dropped: Counter[LossReason] = field(default_factory=Counter)
    starved_count: int = 0
    starved_ms: float = 0.0
    lead_max_ms: float = 0.0

    @property
    def heard_ms(self) -> float:
        """How long something was audible."""
        return sum(heard.heard_ms for heard in self.heard)

    @property
    def ended_ms(self) -> float | None:
        """When the last packet had been played; None when nothing was."""
        return self.heard[-1].at_ms + self.heard[-1].heard_ms if self.heard else None


class Speaker:
    """A queue of packets in front of a loudspeaker; the packet being played still takes its place in the queue.

    Args:
        max_packets: how many packets fit; the newest is dropped when it does not (the firmware).
        max_ms: how much audio fits; the oldest that waits is dropped when more comes (the desktop client).
    """

    def __init__(self, max_packets: int | None = FIRMWARE_QUEUE_PACKETS, max_ms: float | None = None) -> None:
        self._max_packets = max_packets
        self._max_ms = max_ms
        self._waiting: deque[_Queued] = deque()
        self._waiting_ms = 0.0
        self._playing: tuple[float, bytes, float] | None = None  # began at, packet, duration
        self._timestamps: deque[int] = deque()  # of what has begun to sound, for packets of the microphone
        self._silent_since_ms: float | None = None  # when the queue ran dry
        self._in_reply = False
        self.playback = Playback()

    def put(self, packet: bytes, duration_ms: float, now_ms: float, timestamp_ms: int = 0) -> bool:
        """A packet that sounds for `duration_ms` arrives; False when it found no room."""
        queued = _Queued(packet, duration_ms, timestamp_ms)
        self.advance(now_ms)
        self.playback.received += 1
        if self._playing is None:
            if self._in_reply and self._silent_since_ms is not None and now_ms > self._silent_since_ms:
                self.playback.starved_count += 1
                self.playback.starved_ms += now_ms - self._silent_since_ms
            self._begin(now_ms, queued)
        elif self._max_packets is not None and len(self._waiting) + 1 >= self._max_packets:
            self.drop(LossReason.QUEUE_FULL)
            return False
        else:
            self._waiting.append(queued)
            self._waiting_ms += duration_ms
            while self._max_ms is not None and self.queued_ms(now_ms) > self._max_ms and self._waiting:
                self._waiting_ms -= self._waiting.popleft().duration_ms
                self.drop(LossReason.QUEUE_FULL)
        self.playback.lead_max_ms = max(self.playback.lead_max_ms, self.queued_ms(now_ms))
        return True

    def drop(self, reason: LossReason, count: int = 1) -> None:
        """Note packets that will not be heard."""
        if count:
            self.playback.dropped[reason] += count

    def refuse(self, reason: LossReason) -> None:
        """A packet has arrived that the device does not even queue."""
        self.playback.received += 1
        self.drop(reason)

    def advance(self, now_ms: float) -> None:
        """Play until `now_ms`."""
        while self._playing is not None:
            began_ms, packet, duration_ms = self._playing
            ends_ms = began_ms + duration_ms
            if ends_ms > now_ms:
                return
            self.playback.heard.append(HeardPacket(began_ms, packet, duration_ms))
            if self._waiting:
                following = self._waiting.popleft()
                self._waiting_ms = self._waiting_ms - following.duration_ms if self._waiting else 0.0
                self._begin(ends_ms, following)
            else:
                self._playing = None
                self._silent_since_ms = ends_ms

    def _begin(self, at_ms: float, queued: _Queued) -> None:
        self._playing = (at_ms, queued.packet, queued.duration_ms)
        if queued.timestamp_ms:
            self._timestamps.append(queued.timestamp_ms)

    def timestamp_ms(self, now_ms: float) -> int:
        """For a packet of the microphone that is complete: of what has begun to sound, as the firmware gives it."""
        self.advance(now_ms)
        waiting = len(self._timestamps)
        oldest = self._timestamps.popleft() if waiting else 0
        return oldest if waiting <= _MAX_TIMESTAMPS else 0

    @property
    def playing(self) -> HeardPacket | None:
        """What sounds, as of the last time that was passed in."""
        return HeardPacket(*self._playing) if self._playing is not None else None

    def clear(self, now_ms: float, reason: LossReason) -> None:
        """Forget what waits and cut off what sounds."""
        self.advance(now_ms)
        unheard = len(self._waiting)
        if self._playing is not None:
            began_ms, packet, _duration_ms = self._playing
            if now_ms > began_ms:
                self.playback.heard.append(HeardPacket(began_ms, packet, now_ms - began_ms))
            else:
                unheard += 1
        self.drop(reason, unheard)
        self._waiting.clear()
        self._timestamps.clear()
        self._waiting_ms = 0.0
        self._playing = None
        self._silent_since_ms = None

    def begin_reply(self, now_ms: float) -> None:
        """A reply begins: silence counts as starvation from its first packet on."""
        self.advance(now_ms)
        self._in_reply = True
        self._silent_since_ms = None

    def end_reply(self, now_ms: float) -> None:
        """Nothing more is to come: silence from here on is no starvation."""
        self.advance(now_ms)
        self._in_reply = False

    @property
    def busy(self) -> bool:
        """Something sounds, as of the last time that was passed in."""
        return self._playing is not None

    def queued_ms(self, now_ms: float) -> float:
        """How long it would go on sounding if nothing more came."""
        if self._playing is None:
            return 0.0
        began_ms, _packet, duration_ms = self._playing
        return max(0.0, began_ms + duration_ms - now_ms) + self._waiting_ms

    def ends_ms(self) -> float | None:
        """When it will have played what it has; None when nothing sounds."""
        if self._playing is None:
            return None
        began_ms, _packet, duration_ms = self._playing
        return began_ms + duration_ms + self._waiting_ms

    def new_record(self) -> Playback:
        """Begin a new record and return the old one, which grows no more."""
        finished, self.playback = self.playback, Playback()
        return finished


def decode(heard: Sequence[HeardPacket]) -> tuple[PcmFloat, int]:
    """What was heard, float32[n] at 24 kHz, and how many packets were not Opus. Blocking: 0.1 ms a packet."""
    decoder = OpusDecoder(DOWNLINK_RATE_HZ)
    pieces: list[PcmFloat] = []
    undecodable = 0
    for played in heard:
        try:
            piece = decoder.decode(played.packet)
        except OpusError:
            undecodable += 1
        else:
            pieces.append(piece[: round(played.heard_ms * DOWNLINK_RATE_HZ / 1000.0)])
    return (np.concatenate(pieces) if pieces else np.empty(0, np.float32)), undecodable
