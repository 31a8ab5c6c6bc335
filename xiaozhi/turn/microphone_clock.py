"""When the sound of one microphone was heard, by the wall clock, however late the network brought it. Pure.

Sound is counted by what has come (audio time). How late it came is never less than it was at its best, so the least
lateness of the last seconds says when a sample was heard to within a few milliseconds, a stall of the network or not.
Only a client that sends nothing while nobody speaks makes the lateness grow for good; then all that can be said is that
the sample was heard between the least lateness and the last.
"""

from typing import Final

# The least lateness is that of the last one or two of these.
_SPAN_MS: Final = 10_000.0
# Sound that came later than this after its due time is not placed any more.
_MAX_RANGE_MS: Final = 2000.0


class MicrophoneClock:
    """Follows the packets of one microphone. All times are milliseconds; the wall clock is any that never goes back."""

    __slots__ = ("_before_ms", "_from_ms", "_last_ms", "_least_ms")

    def __init__(self) -> None:
        self._from_ms = 0.0  # when the present span began
        self._least_ms: float | None = None  # lateness in the present span
        self._before_ms: float | None = None  # in the one before
        self._last_ms = 0.0

    def came(self, end_ms: float, now_ms: float) -> None:
        """Sound up to `end_ms` of audio time has come by `now_ms` of the wall clock."""
        late_ms = now_ms - end_ms
        self._last_ms = late_ms
        if self._least_ms is None or now_ms - self._from_ms >= _SPAN_MS:
            self._before_ms, self._least_ms, self._from_ms = self._least_ms, late_ms, now_ms
        self._least_ms = min(self._least_ms, late_ms)

    def heard_ms(self, audio_ms: float) -> tuple[float, float] | None:
        """Between which times of the wall clock the sample at `audio_ms` was heard; None before any sound has come."""
        if self._least_ms is None:
            return None
        least_ms = self._least_ms if self._before_ms is None else min(self._least_ms, self._before_ms)
        return audio_ms + max(least_ms, self._last_ms - _MAX_RANGE_MS), audio_ms + self._last_ms
