"""A stream that begins in the middle of a thought: the prompt has opened it, and only its end is written. Pure."""

from enum import Enum, auto
from typing import Final

from xiaozhi.text.hidden import THINKING

_OPENERS: Final = tuple(opener for opener, closer in THINKING if closer)
_CLOSERS: Final = tuple(closer for _, closer in THINKING if closer)
_LONGEST_OPENER: Final = max(map(len, _OPENERS))
_LONGEST_CLOSER: Final = max(map(len, _CLOSERS))
MOST_THOUGHT_CHARS: Final = 50_000
"""What is held back at most: reasoning models take some thousand tokens for a question, seldom ten thousand."""


class ThoughtState(Enum):
    """What is known of the beginning of a stream."""

    HOLDING = auto()  # it may be a thought: nothing is shown
    ENDED = auto()  # it was one, and is over
    NONE = auto()  # it was none: everything is shown


class BegunThought:
    """Holds back the beginning of a text that arrives in pieces until the thought in it has ended.

    A text that begins with the opening tag is not of this kind: it is let through whole, tags and all.
    """

    def __init__(self) -> None:
        self.state = ThoughtState.HOLDING
        """What is known by now."""
        self._held: list[str] = []
        self._length = 0
        self._head = ""  # the beginning, as far as it may be an opening tag
        self._tail = ""  # the end, which may be the beginning of a closing tag

    @property
    def overfull(self) -> bool:
        """More than `MOST_THOUGHT_CHARS` are held back."""
        return self._length > MOST_THOUGHT_CHARS

    def push(self, text: str) -> str:
        """Take the next piece and return what can be shown by now."""
        if self.state is not ThoughtState.HOLDING:
            return text
        if len(self._head) < _LONGEST_OPENER:
            self._head = (self._head + text).lstrip()
            if self._head.startswith(_OPENERS):
                return self.release() + text
        window = self._tail + text
        ends = [(at, at + len(closer)) for closer in _CLOSERS if (at := window.find(closer)) >= 0]
        if ends:
            self._become(ThoughtState.ENDED)
            return window[min(ends)[1] :]
        self._held.append(text)
        self._length += len(text)
        self._tail = window[-(_LONGEST_CLOSER - 1) :]
        return ""

    def release(self) -> str:
        """It is no thought after all: return what was held back; from now on everything is let through."""
        held = "".join(self._held)
        if self.state is ThoughtState.HOLDING:
            self._become(ThoughtState.NONE)
        return held

    def _become(self, state: ThoughtState) -> None:
        self.state = state
        self._held.clear()
        self._length = 0
        self._head = self._tail = ""
