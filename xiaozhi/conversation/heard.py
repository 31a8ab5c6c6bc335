"""What the user said last in one conversation: the words, their times, and whether they were understood. Pure."""

from dataclasses import dataclass, field

from xiaozhi.events import SpeechAudio, SpeechBegan
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.stage import Recognised
from xiaozhi.text.language import language_of
from xiaozhi.text.same_words import same_words
from xiaozhi.turn.trace import TurnTrace


@dataclass(slots=True)
class HeardUtterance:
    """The utterance that is open, or was last.

    Audio time is milliseconds of microphone audio since the connection began; all other times are seconds on the
    loop's monotonic clock.

    Attributes:
        transcript: what was said last.
        language: of the last words; empty before any.
        missed: why it could not be recognised; empty where it could.
        settled: what had been said before anybody asked; None where more has been said since.
        soft_end: the short silence that started work; None for a typed text, which has no voice to count from.
    """

    transcript: Transcript = field(default_factory=lambda: Transcript(""))
    language: str = ""
    missed: str = ""
    settled: Transcript | None = None
    soft_end: float | None = None
    _settled_at: float = 0.0
    _text: float | None = None  # its words were known
    _decode_ms: float | None = None
    _epoch: float = 0.0  # when audio time began
    _began_ms: float = 0.0
    _end_ms: float = 0.0
    _last_voiced_ms: float = 0.0
    _provisional: int | None = None  # the ticket of a text that waits to be confirmed

    @property
    def length_ms(self) -> float:
        """From its beginning to the last sample."""
        return self._end_ms - self._began_ms

    def grew(self, event: SpeechBegan | SpeechAudio, now: float) -> None:
        """It has begun, or more of it has arrived."""
        self._end_ms = event.end_ms
        epoch = now - event.end_ms / 1000.0
        if isinstance(event, SpeechBegan):
            self.missed, self.settled = "", None
            self._epoch, self._began_ms, self._last_voiced_ms = epoch, event.start_ms, event.end_ms
        else:
            # The earliest arrival so far tells best when a sample was spoken; later ones were held up on the way.
            self._epoch = min(self._epoch, epoch)
            if event.last_voiced_ms > self._last_voiced_ms:
                self.settled = None
            self._last_voiced_ms = event.last_voiced_ms

    def settles(self, transcript: Transcript, now: float) -> None:
        """It is silent, and this is what was said up to there."""
        self.settled, self._settled_at = transcript, now

    def recognised(self, answer: Recognised, text: str, now: float) -> None:
        """Recognition has answered; `text` is what counts of it."""
        confirms = answer.ticket == self._provisional and same_words(text, self.transcript.text)
        if not confirms:  # words that are only confirmed were known before
            known = self.settled is not None and same_words(text, self.settled.text)
            self._text, self._decode_ms = self._settled_at if known else now, answer.took_s * 1000.0
        self._provisional = answer.ticket if answer.provisional else None
        self.transcript = answer.transcript
        if text:
            self.language = answer.transcript.language or self.language

    def typed(self, text: str) -> None:
        """Something was said in writing."""
        self.transcript = Transcript(text, confidence="sure")
        self.language = language_of(text, default=self.language)
        self.soft_end = self._text = self._decode_ms = None

    def note(self, trace: TurnTrace, now: float) -> None:
        """It is committed, or given up: write its times into its turn's record."""
        trace.soft_end, trace.text, trace.decode_ms = self.soft_end, self._text, self._decode_ms
        if self.soft_end is None:
            trace.anchor = now
        else:
            trace.anchor = self._epoch + self._last_voiced_ms / 1000.0
            trace.speech_ms = self._last_voiced_ms - self._began_ms
