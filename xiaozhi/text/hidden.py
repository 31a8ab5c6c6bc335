"""Parts of a model's stream that are neither shown nor spoken: its thinking, and blocks of code."""

from collections.abc import Sequence
from typing import Final

_THINKING_WORDS: Final = ("think", "thinking", "thought", "reasoning")

THINKING: Final = tuple((f"<{word}>", f"</{word}>") for word in _THINKING_WORDS) + tuple(
    # Some chat templates open the thinking themselves, so that only its end is in the stream.
    (f"</{word}>", "")
    for word in _THINKING_WORDS
)
"""What reasoning models write around their thoughts when the server does not separate them."""

CODE: Final = (("```", "```"), ("~~~", "~~~"))
"""Fenced blocks of code."""


class HiddenSpans:
    """Removes spans from a text that arrives in pieces; the cuts between pieces make no difference.

    Args:
        spans: pairs of what opens and what closes a span; an empty closer removes the opener alone. A span that is
            never closed hides the rest.
    """

    def __init__(self, spans: Sequence[tuple[str, str]]) -> None:
        self._spans = tuple(spans)
        self._tail = ""  # what may be the beginning of a marker
        self._closer: str | None = None
        self.lone = 0
        """Openers that were removed alone."""

    def push(self, text: str) -> str:
        """Take the next piece and return what can be shown by now."""
        self._tail += text
        shown = []
        while True:
            if self._closer is not None:
                end = self._tail.find(self._closer)
                if end < 0:
                    self._tail = _unfinished(self._tail, (self._closer,))
                    break
                self._tail = self._tail[end + len(self._closer) :]
                self._closer = None
                continue
            found = [
                (start, -len(opener), closer)  # the first, and of two that begin together the longer
                for opener, closer in self._spans
                if (start := self._tail.find(opener)) >= 0
            ]
            if not found:
                tail = _unfinished(self._tail, tuple(opener for opener, _ in self._spans))
                shown.append(self._tail[: len(self._tail) - len(tail)])
                self._tail = tail
                break
            start, minus_length, closer = min(found)
            shown.append(self._tail[:start])
            self._tail = self._tail[start - minus_length :]
            self._closer = closer
            self.lone += not closer
        return "".join(shown)

    def flush(self) -> str:
        """End the text and return what was held back."""
        tail, self._tail = self._tail, ""
        return "" if self._closer is not None else tail


def _unfinished(text: str, markers: Sequence[str]) -> str:
    """The longest end of `text` that begins one of the markers."""
    longest = max(map(len, markers)) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(marker.startswith(end) for marker in markers):
            return end
    return ""
