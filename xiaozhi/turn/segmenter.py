"""Where speech begins, pauses and goes on: one probability per window in, audio time out. Pure.

Counting windows above a threshold is not enough: right after a start, or when a fan comes on, Silero says 0.5 to 0.8
about plain noise for up to 14 windows on end, longer than the word "six" is voiced. What tells them apart is how sure
it is, so windows are weighed by their log-odds, from -1 (surely not speech) to +1 (speech, 0.9 and above). Onset is a
cumulative sum of these weights that never falls below zero (Page's test, 1954): clear speech is found after
`min_speech_ms`, doubtful speech later, a click never.

Measured (`python -m bench.vad_quality`) on 129 recordings of speech and 216 beginnings of noise, through Opus, with a
sum of 4 windows: one recording is missed, a whisper of -60 dBFS, and speech is found in 4 (v5) or 1 (v6) of the noises.
A plain count of 3 windows above 0.5 finds speech in office noise and in an empty room as well.
"""

import math
from typing import Final

# Log-odds of 0.9 above even: as much over the threshold counts as one whole window of speech.
_CLEAR: Final = 2.2
# A voice that fades is below this. Measured on 77 recordings with v5: the last voiced window of 90 % of them is, and so
# are 5 % of the windows in the midst of speech (0.9: 83 and 3 %).
_FULL_VOICE: Final = 0.95
# An utterance with so many windows of a voice in full is no noise. Measured with v6 on 195 beginnings of noise and 129
# recordings: of the noises 5 become utterances, none with such a window (and one of 60 s, with one); of the recordings
# one has fewer as it is, and 6 have at 10 dB above office noise, spelled letters and single words.
_CERTAIN_WINDOWS: Final = 2
# A silent window of this probability may be the beginning of speech. Measured on sentences with a pause of 600 ms:
# Silero finds speech that goes on up to 200 ms late, and 6.9 % of new users were cut off in between; holding back
# while a window is doubtful leaves 2.5 % (v6).
_DOUBT: Final = 0.1
# So may be one that rises this much (log-odds) above the least of so many windows before it, however silent: in a pause
# Silero falls to 0.001 and below, and climbs out of it over two or three windows. Measured with new users, shares cut
# off at pauses of 500, 600 and 700 ms without and with it: v5 5.9, 11.8, 51 % and 0, 7.8, 37 %; v6 0, 3.8, 40 % and 0,
# 3.8, 26 %. First audio stays where it was (p50 775 and 771 ms; in noise of 10 dB about 8 ms later).
_RISE: Final = 1.5
_RISE_WINDOWS: Final = 3
# Evidence, in whole windows, that speech has gone on after a silence: one clear window or two of 0.76. Measured with v5
# on 54 clips in noise of 10 dB: with a bare threshold 7 ends came over 300 ms late, with this 5. Asking for two clear
# windows makes no end earlier and, on 107 clean clips, three more pauses of 200 ms out of short syllables.
_RESUME_WINDOWS: Final = 1.0


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-6), 1.0 - 1e-6)
    return math.log(bounded / (1.0 - bounded))


class Segmenter:
    """Follows one microphone. Times are audio time in milliseconds, counted from `reset`.

    Args:
        threshold: probability at which a window is as likely speech as not.
        release_threshold: while voiced, a window stays voiced down to this.
        min_speech_ms: so much clear speech makes an onset.
        window_ms: length of one window.
    """

    __slots__ = (
        "_before",
        "_even",
        "_evidence",
        "_evidence_from_ms",
        "_full_windows",
        "_onset_windows",
        "_release",
        "_window_ms",
        "doubtful",
        "fading",
        "in_speech",
        "last_voiced_ms",
        "now_ms",
        "start_ms",
        "voiced",
    )

    def __init__(
        self, threshold: float, release_threshold: float, min_speech_ms: float, window_ms: float = 32.0
    ) -> None:
        if not 0.0 < release_threshold <= threshold < 1.0:
            raise ValueError("thresholds must satisfy 0 < release_threshold <= threshold < 1")
        self._even = _log_odds(threshold)
        self._release = release_threshold
        self._window_ms = window_ms
        self._onset_windows = max(1.0, min_speech_ms / window_ms)
        self.reset()

    def reset(self, now_ms: float = 0.0) -> None:
        """Forget everything; the next window begins at `now_ms`."""
        self.now_ms = now_ms
        """End of the last window."""
        self.in_speech = False
        """An onset has been found and the utterance is not closed."""
        self.voiced = False
        """The user's voice sounds now."""
        self.fading = True
        """The newest window is not a voice in full: it is silent, or about to be."""
        self._full_windows = 0
        self.doubtful = False
        """Inside an utterance the newest window counts as silent, but may be speech that begins again."""
        self.start_ms = now_ms
        """Beginning of the first voiced window of the utterance."""
        self.last_voiced_ms = now_ms
        """End of the last voiced window of the utterance."""
        self._evidence = 0.0
        self._evidence_from_ms = now_ms
        self._before: tuple[float, ...] = ()  # log-odds of the newest silent windows of the utterance

    @property
    def silence_ms(self) -> float:
        """How long the voice has been silent inside the utterance; 0 while voiced."""
        return 0.0 if self.voiced or not self.in_speech else self.now_ms - self.last_voiced_ms

    @property
    def certain(self) -> bool:
        """The utterance is somebody's voice, not what noise may sound like."""
        return self._full_windows >= _CERTAIN_WINDOWS

    def close(self) -> None:
        """The utterance is over: wait for the next onset. The clock goes on."""
        self.in_speech = self.voiced = self.doubtful = False
        self._evidence, self._full_windows = 0.0, 0

    def open(self) -> None:
        """Begin an utterance now, in silence, whatever was heard (push to talk)."""
        self.in_speech, self.voiced = True, False
        self.start_ms = self.last_voiced_ms = self.now_ms
        self._evidence, self._full_windows = 0.0, _CERTAIN_WINDOWS

    def feed(self, probability: float) -> bool:
        """Take the next window's probability; True when speech has been found with it."""
        onset = self._feed(probability)
        self.fading = probability < _FULL_VOICE
        if not self.in_speech and self._evidence == 0.0:
            self._full_windows = 0
        elif not self.fading:
            self._full_windows += 1
        self.doubtful = self._may_begin_again(probability)
        return onset

    def _may_begin_again(self, probability: float) -> bool:
        """Whether this window, silent and inside an utterance, may be the beginning of speech."""
        if not self.in_speech or self.voiced:
            self._before = ()
            return False
        odds = _log_odds(probability)
        rises = len(self._before) == _RISE_WINDOWS and odds - min(self._before) >= _RISE
        self._before = (*self._before, odds)[-_RISE_WINDOWS:]
        return rises or probability >= _DOUBT

    def _feed(self, probability: float) -> bool:
        began_ms = self.now_ms
        self.now_ms += self._window_ms
        if self.voiced:
            if probability >= self._release:
                self.last_voiced_ms = self.now_ms
            else:
                self.voiced = False
                self._evidence = 0.0
            return False
        if self._evidence == 0.0:
            self._evidence_from_ms = began_ms
        weight = (_log_odds(probability) - self._even) / _CLEAR
        self._evidence = max(0.0, self._evidence + min(1.0, max(-1.0, weight)))
        needed = _RESUME_WINDOWS if self.in_speech else self._onset_windows
        if self._evidence < needed:
            return False
        onset = not self.in_speech
        if onset:
            self.start_ms = self._evidence_from_ms
        self.in_speech = self.voiced = True
        self.last_voiced_ms = self.now_ms
        return onset
