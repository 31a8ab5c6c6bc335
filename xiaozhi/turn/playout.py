"""One playout clock per reply: when the next frame may leave, what has been played, whether the device starved. Pure.

The device's decode queue counts packets and drops the newest when it is full, and whatever is queued there cannot be
taken back, so audio leaves at real time with a fixed lead. All times are milliseconds on one monotonic clock.
"""

import math
from typing import Final

# Whoever seems to begin to speak is mostly known to do so, or not to, two packets of 60 ms later. A lead of 90 ms is a
# packet that leaves 30 ms before it is played.
_SHORT_FOR_MS: Final = 120.0
_SHORT_LEAD_MS: Final = 90.0
# Sound that flickers like speech for longer does not leave the device without its lead all the time.
_MAX_SHORT_MS: Final = 360.0
_SHORT_EVERY_MS: Final = 1500.0


class PlayoutClock:
    """The device's loudspeaker as the server imagines it.

    Playback is taken to begin when the first frame leaves; frame k is due `lead_ms` before it will have been played, so
    that with it no more than `lead_ms` wait in the device. When a frame comes too late the device has been silent for a
    while: the clock is moved by that gap, so that the lead after a starvation is the same as before and never grows.

    Args:
        lead_ms: how far ahead of playback frames leave (180 to 300 ms keeps firmware and desktop clients fed; an
            interruption cannot take back what has left).
    """

    __slots__ = ("_base_ms", "_lead_ms", "_sent_ms", "_short_from_ms", "_short_until_ms", "gaps", "starved_ms")

    def __init__(self, lead_ms: float) -> None:
        self._lead_ms = lead_ms
        self._short_from_ms = self._short_until_ms = -math.inf
        self._base_ms: float | None = None  # playback time of media position 0
        self._sent_ms = 0.0
        self.starved_ms = 0.0
        """How long the device had nothing to play between the first and the last frame."""
        self.gaps = 0
        """How often that happened."""

    @property
    def sent_ms(self) -> float:
        """How much audio has left."""
        return self._sent_ms

    def due_ms(self, now_ms: float, duration_ms: float = 0.0) -> float:
        """When the next frame, of this duration, may leave; `now_ms` for the first one."""
        if self._base_ms is None:
            return now_ms
        ends_ms = self._base_ms + self._sent_ms + duration_ms
        if now_ms < self._short_until_ms:
            return min(ends_ms - min(self._lead_ms, _SHORT_LEAD_MS), max(ends_ms - self._lead_ms, self._short_until_ms))
        return ends_ms - self._lead_ms

    def shorten_lead(self, now_ms: float) -> None:
        """Keep the lead as short as can be for a moment; it is made up for at once afterwards."""
        if now_ms - self._short_from_ms >= _SHORT_EVERY_MS:
            self._short_from_ms = now_ms
        self._short_until_ms = min(now_ms + _SHORT_FOR_MS, self._short_from_ms + _MAX_SHORT_MS)

    def sent(self, duration_ms: float, now_ms: float) -> None:
        """A frame of `duration_ms` has just left."""
        if self._base_ms is None:
            self._base_ms = now_ms
        late_ms = now_ms - (self._base_ms + self._sent_ms)
        if late_ms > 0.0 and self._sent_ms > 0.0:
            self.starved_ms += late_ms
            self.gaps += 1
            self._base_ms += late_ms
        self._sent_ms += duration_ms

    def held(self, gap_ms: float) -> None:
        """The reply was held on purpose for `gap_ms` after its queue had played out: a silence, but no starvation."""
        if self._base_ms is not None:
            self._base_ms += gap_ms

    def played_ms(self, now_ms: float) -> float:
        """How much of the audio that left has been played by now."""
        if self._base_ms is None:
            return 0.0
        return min(max(0.0, now_ms - self._base_ms), self._sent_ms)

    def ends_ms(self) -> float | None:
        """When all audio that left will have been played; None before the first frame."""
        return None if self._base_ms is None else self._base_ms + self._sent_ms
