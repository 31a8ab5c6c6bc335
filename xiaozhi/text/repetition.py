"""Whether a text that is being written goes round in circles: a sentence, or a few, again and again. Pure."""

from collections import deque
from typing import Final

from xiaozhi.text.units import UNIT_MS, is_cjk, units

# Words in a row that make something new; of Chinese, characters.
_WORDS: Final = 4
# So much speech without anything new is a circle. A refrain that is sung once more takes up to 16 s; twenty times "I
# love you", asked for, takes 15 s.
_CIRCLE_S: Final = 20.0


class Repetition:
    """Takes one text in pieces and notices when nothing new comes any more."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()
        self._last: deque[str] = deque(maxlen=_WORDS)
        self._word = ""
        self._stale_ms = 0.0

    def push(self, text: str) -> bool:
        """Take the next piece; whether the text goes round in circles by now."""
        for char in text:
            if char.isalnum() and not is_cjk(char):
                self._word += char.lower()
                continue
            self._take(self._word)
            self._word = ""
            if is_cjk(char):
                self._take(char)
        return self._stale_ms + units(self._word) * UNIT_MS >= _CIRCLE_S * 1000.0

    def _take(self, word: str) -> None:
        if not word:
            return
        self._last.append(word)
        phrase = tuple(self._last)
        self._stale_ms = self._stale_ms + units(word) * UNIT_MS if phrase in self._seen else 0.0
        self._seen.add(phrase)
