"""Silence that a microphone does not send: gaps between its packets, by the wall clock. Pure: times passed in.

Some clients send nothing while nobody speaks (discontinuous transmission, a voice gate of their own), and then a gap is
as good as silence. Others send always, and then a gap is the network's: what was said meanwhile comes later, all at
once. Which it is cannot be known before it is over, but three things tell: whether the voice was fading before the gap
(networks stop anywhere, mostly in the midst of a word), whether this client has been sending silence while nobody
spoke, and, in the end, whether the sound is made up for.
"""

from typing import Final

# Networks are late by this much all the time; a gap that is not trusted counts from here on.
_JITTER_MS: Final = 250.0
# Who has sent so much silence without a gap sends it always.
_STEADY_MS: Final = 3000.0
# Libopus sends a packet every 400 ms of its gaps.
_MIN_GATE_MS: Final = 300.0
# Some networks and clients deliver packets in bundles: gaps that were made up for are usual, up to this length, and are
# forgotten over a minute (a factor for each delivery).
_MAX_USUAL_MS: Final = 500.0
_USUAL_MARGIN_MS: Final = 50.0
_FADES: Final = 0.999


class PacketGaps:
    """Follows the packets of one microphone. All times are milliseconds.

    Args:
        gap_ms: nothing for so long is a gap.
    """

    __slots__ = (
        "_gap_ms",
        "_heard_ms",
        "_kept_ms",
        "_last_ms",
        "_sent_silence_ms",
        "_since_ms",
        "_trusted",
        "_unsent_ms",
        "_usual_ms",
        "gap_ms",
    )

    def __init__(self, gap_ms: float) -> None:
        self.gap_ms = gap_ms
        """May be changed at any time."""
        self._sent_silence_ms = 0.0  # while nobody spoke, without a gap
        self._usual_ms = 0.0  # the longest gap that was made up for
        self.forget()

    @property
    def min_ms(self) -> float:
        """Nothing for so long is a gap of this microphone: more than is usual."""
        return max(self.gap_ms, self._usual_ms + _USUAL_MARGIN_MS if self._usual_ms else 0.0)

    def forget(self) -> None:
        """What comes next follows nothing, such as the first packet after the microphone was shut."""
        self._last_ms: float | None = None
        self.restart()

    def restart(self) -> None:
        """A voice sounds: silence is counted from its end."""
        self._kept_ms = 0.0  # of gaps before the last one
        self._since_ms = 0.0  # when the last gap began
        self._heard_ms = 0.0  # sound that has come since then
        self._gap_ms = 0.0  # the length of the last gap
        self._unsent_ms = 0.0  # of it, and not made up for
        self._trusted: bool | None = None

    def packets(self, sound_ms: float, now_ms: float, *, open_utterance: bool) -> None:
        """Packets with `sound_ms` of sound have come."""
        since_ms = self._last_ms if self._last_ms is not None else now_ms
        gap_ms, self._last_ms = now_ms - since_ms, now_ms
        self._usual_ms *= _FADES
        if gap_ms >= self.gap_ms:
            self._kept_ms += self._unsent_ms
            self._since_ms, self._heard_ms, self._unsent_ms = since_ms, 0.0, gap_ms
            self._gap_ms = gap_ms
        self._heard_ms += sound_ms
        # Late packets come faster than they sound: what they make up for was no silence.
        self._unsent_ms = min(self._unsent_ms, max(0.0, now_ms - self._since_ms - self._heard_ms))
        if self._gap_ms and not self._unsent_ms:
            self._usual_ms = max(self._usual_ms, min(self._gap_ms, _MAX_USUAL_MS))
            self._gap_ms = 0.0
        if not open_utterance:
            self._sent_silence_ms = 0.0 if gap_ms >= _MIN_GATE_MS else self._sent_silence_ms + sound_ms

    def silent_for_ms(self, now_ms: float) -> float:
        """How long nothing has come; 0 before anything has."""
        return now_ms - self._last_ms if self._last_ms is not None else 0.0

    def unsent_ms(self, now_ms: float, *, faded: bool) -> tuple[float, bool]:
        """Silence since the last voiced sample that no sound has come for, and whether that is doubtful.

        Args:
            now_ms: by the wall clock.
            faded: what came last was not clearly a voice.
        """
        gap_ms = self.silent_for_ms(now_ms)
        unsent_ms = self._kept_ms + self._unsent_ms + (gap_ms if gap_ms >= self.min_ms else 0.0)
        if not unsent_ms:
            return 0.0, False
        if self._trusted is None:
            self._trusted = faded and self._sent_silence_ms < _STEADY_MS
        if self._trusted:
            return unsent_ms, False
        return max(0.0, unsent_ms - _JITTER_MS), True
