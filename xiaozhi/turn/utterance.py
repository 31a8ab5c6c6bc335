"""The speech that is heard now, and what it says about whether its user has finished. Pure: audio time in."""

from dataclasses import dataclass
from typing import Final

from xiaozhi.settings import TurnSettings

# Speech over a reply is recognised again after this much more of it, and given up after this long without words; the
# reply is not kept waiting for them as long as that.
_PROBE_EVERY_MS: Final = 300.0
_MAX_HOLD_MS: Final = 1200.0
_MAX_PROBE_MS: Final = 2000.0
# Behind a word that may be the first of more, the reply waits through a pause as they are between words.
_BETWEEN_WORDS_MS: Final = 400.0
# A provisional text is committed when its confirmation keeps everything else waiting for this long.
_MAX_CONFIRM_MS: Final = 400.0
# Doubtful silence delays a commit by this much at the most: with what follows plainly whole words 0.8 s of a stall.
_MAX_DOUBT_MS: Final = 450.0
# A reply is kept this long into resumed speech, in case the words turn out to be the same (a breath, a cough).
_KEEP_REPLY_MS: Final = 400.0
# Replies begun before a soft end in one utterance: each that is not the one costs a request of the language model.
_MAX_EARLY_STARTS: Final = 2
# No reply is prepared ahead for speech longer than this: the user is telling something, not asking.
_MAX_SPECULATE_MS: Final = 10_000.0
# Speech goes on where a voiced sample is later than the last one by more than rounding.
_LATER_MS: Final = 1.0


@dataclass(slots=True)
class OpenUtterance:
    """What is known of it. Times are audio milliseconds."""

    began_ms: float = 0.0
    before: str = ""  # what the user said in front of it, where it goes on with a turn whose reply is taken back
    after_abort: bool = False  # that reply was cut by `abort`: without more words nothing is to be answered
    voiced_until_ms: float = 0.0
    silence_ms: float = 0.0
    unsent_ms: float = 0.0  # of that silence, what was not sent but taken from the clock
    pause_ms: float = 0.0  # of that silence, what counts as this user's habit
    doubtful: bool = False  # the newest silence may be speech
    certain: bool = False  # a voice in full has been heard in it
    resumed_ms: float | None = None  # when speech went on with a reply already prepared
    attempts: int = 0  # soft ends
    early_starts: int = 0  # replies begun before one
    forced: bool = False  # the end is not ours to judge: key released, utterance too long
    text: str | None = None  # recognised text of this revision; None while unknown
    provisional: bool = False  # that text may still be corrected
    unconfirmed_ms: float | None = None  # silence at which only its confirmation was missing
    wait_ms: float = 0.0
    failures: int = 0  # replies to this revision that failed before they were heard
    voice_from_ms: float = 0.0  # where it began, behind the pre-roll
    probed_ms: float = 0.0  # up to where it has been recognised
    probe_open: bool = False
    has_words: bool = False  # too few to stop the reply

    @property
    def voiced_ms(self) -> float:
        """From its beginning to the last voiced sample."""
        return max(0.0, self.voiced_until_ms - self.began_ms)

    def grew(self, end_ms: float, silence_ms: float, unsent_ms: float, doubtful: bool) -> float | None:
        """More of it has come, up to `end_ms`; see `TurnMachine.heard`.

        Returns:
            The pause after which speech has gone on with it; None where it has not.
        """
        until_ms = end_ms - (silence_ms - unsent_ms)
        resumed = until_ms > self.voiced_until_ms + _LATER_MS
        pause_ms, self.pause_ms = self.pause_ms, silence_ms - (unsent_ms if doubtful else 0.0)
        self.silence_ms, self.unsent_ms, self.doubtful = silence_ms, unsent_ms, doubtful
        self.voiced_until_ms = max(self.voiced_until_ms, until_ms)
        return pause_ms if resumed else None

    def stalled(self, settings: TurnSettings) -> bool:
        """Nothing has come for so long that what was said is all there is."""
        return self.unsent_ms >= settings.stall_s * 1000.0

    def outgrows_reply(self) -> bool:
        """So much speech has gone on with a reply already prepared that the words will not be the same."""
        return self.resumed_ms is not None and self.voiced_until_ms - self.resumed_ms > _KEEP_REPLY_MS

    def may_be_a_question(self, settings: TurnSettings) -> bool:
        """A reply may be prepared at its soft end."""
        return self.attempts < settings.max_speculations and self.voiced_ms <= _MAX_SPECULATE_MS

    def may_start_early(self) -> bool:
        """Another reply may be prepared before its soft end: it is silent already, and nothing was asked about it."""
        silent = self.silence_ms > 0.0 and self.text is None and not self.forced
        return silent and self.early_starts < _MAX_EARLY_STARTS

    def has_finished(self, needed_ms: float, settings: TurnSettings) -> bool:
        """Its words are known, and the silence after them is long enough."""
        return bool(self.text) and (self.forced or self.stalled(settings) or self.silence_ms >= needed_ms)

    def may_go_on(self, needed_ms: float, settings: TurnSettings) -> bool:
        """Whether the user seems to begin again just now. Steady background noise holds nobody up for ever."""
        held_up = self.silence_ms < needed_ms + _MAX_DOUBT_MS
        return self.doubtful and not self.forced and not self.stalled(settings) and held_up

    def awaits_confirmation(self) -> bool:
        """Whether a turn that could be committed has to wait for its words to be confirmed."""
        if not self.provisional:
            return False
        if self.unconfirmed_ms is None:
            self.unconfirmed_ms = self.silence_ms
        return self.silence_ms - self.unconfirmed_ms < _MAX_CONFIRM_MS

    # Over a reply -------------------------------------------------------------------------------------------------

    @property
    def voice_ms(self) -> float:
        """From its first voiced sample to the last."""
        return max(0.0, self.voiced_until_ms - self.voice_from_ms)

    def falls_silent(self, settings: TurnSettings) -> bool:
        """Whether who speaks over the reply has stopped; what may come late is waited for a little."""
        late_ms = _MAX_DOUBT_MS if self.unsent_ms and self.doubtful else 0.0
        return self.silence_ms >= settings.soft_end_ms + late_ms

    def probed(self, now_ms: float) -> None:
        """What it says up to here is being recognised."""
        self.probed_ms, self.probe_open = now_ms, True

    def probe_is_due(self, now_ms: float, settings: TurnSettings) -> bool:
        """There is more of it to be recognised: it goes on, or has just ended."""
        more_ms = min(self.voiced_until_ms, now_ms) - max(self.probed_ms, self.voice_from_ms)
        enough_ms = _LATER_MS if self.falls_silent(settings) else _PROBE_EVERY_MS
        return not self.probe_open and more_ms >= enough_ms

    def was_nothing(self, now_ms: float, settings: TurnSettings) -> bool:
        """It ended without words that stop the reply, or goes on without them."""
        if now_ms - self.voice_from_ms >= _MAX_PROBE_MS:
            return True
        over = self.falls_silent(settings) and not self.probe_open
        return over and (not self.has_words or self.silence_ms >= _BETWEEN_WORDS_MS)

    def is_held_in_vain(self, now_ms: float) -> bool:
        """It goes on and nothing of it is understood: the reply need not wait for it."""
        return not self.probe_open and now_ms - self.voice_from_ms >= _MAX_HOLD_MS
