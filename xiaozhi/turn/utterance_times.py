"""When the open utterance was spoken and understood, for the record of its turn. Pure."""

from dataclasses import dataclass

from xiaozhi.turn.trace import TurnTrace


@dataclass(slots=True)
class UtteranceTimes:
    """Times of the utterance that is open now.

    Audio time is milliseconds of microphone audio since the connection began; all other times are seconds on the
    loop's monotonic clock.
    """

    soft_end: float | None = None
    """The short silence that started work; None for a typed text, which has no voice to count from."""
    text: float | None = None
    """Its words were known."""
    decode_ms: float | None = None
    """How long recognising them took."""
    _epoch: float = 0.0  # when audio time began
    _began_ms: float = 0.0
    _last_voiced_ms: float = 0.0

    def speech_began(self, start_ms: float, end_ms: float, now: float) -> None:
        """Speech was found, from `start_ms` to `end_ms` in audio time."""
        self._epoch = now - end_ms / 1000.0
        self._began_ms = start_ms
        self._last_voiced_ms = end_ms

    def speech_went_on(self, end_ms: float, last_voiced_ms: float, now: float) -> None:
        """More of it has arrived."""
        # The earliest arrival so far tells best when a sample was spoken; later ones were held up on the way.
        self._epoch = min(self._epoch, now - end_ms / 1000.0)
        self._last_voiced_ms = last_voiced_ms

    def words_known(self, now: float, took_s: float) -> None:
        """Recognition has answered after `took_s` seconds."""
        self.text = now
        self.decode_ms = took_s * 1000.0

    def typed(self) -> None:
        """The utterance is a text."""
        self.soft_end = self.text = self.decode_ms = None

    def note(self, trace: TurnTrace, now: float) -> None:
        """The utterance is committed: write its times into its turn's record."""
        trace.soft_end, trace.text, trace.decode_ms = self.soft_end, self.text, self.decode_ms
        if self.soft_end is None:
            trace.anchor = now
        else:
            trace.anchor = self._epoch + self._last_voiced_ms / 1000.0
            trace.speech_ms = self._last_voiced_ms - self._began_ms
