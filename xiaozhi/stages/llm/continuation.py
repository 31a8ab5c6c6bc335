"""One model goes on where another broke off. Pure."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from xiaozhi.events import Message
from xiaozhi.stages.llm.engine import ChatRequest
from xiaozhi.text.language import is_chinese

_GO_ON_ZH: Final = (
    "（你的回答在上面的地方断开了。请紧接着最后一个字继续说完，不要重复已经说过的内容，不要道歉，也不要加表情或解释。）"
)
_GO_ON_EN: Final = (
    "(Your answer was cut off right there. Go on exactly after its last word, in the same language; do not repeat "
    "anything, do not apologise, add no emoji and no explanation.)"
)
# An overlap is a repetition and no chance from here on; a Chinese character counts two.
_MIN_OVERLAP: Final = 4


def continuing(request: ChatRequest, said: str) -> ChatRequest:
    """The request to another model when `said` has been produced already and is, perhaps, being spoken."""
    if not said.strip():
        return request
    go_on = _GO_ON_ZH if is_chinese(request.language) else _GO_ON_EN
    messages: Sequence[Message] = (*request.messages, Message("assistant", said), Message("user", go_on))
    return replace(request, messages=messages)


def goes_on(request: ChatRequest) -> bool:
    """Whether a request is one of `continuing`."""
    return request.messages[-1].content in (_GO_ON_ZH, _GO_ON_EN)


class Seam:
    """Joins a continuation to what was said before: what the model says again is cut.

    Holds text back only while it may be a repetition.

    Args:
        said: what was produced before.
    """

    def __init__(self, said: str) -> None:
        self._said = said
        self._known = "".join(_letters(said))
        self._held = ""
        self._joined = not said.strip()

    def push(self, text: str) -> str:
        """The next piece of the continuation; returns what follows on what was said, often all of it."""
        if self._joined:
            return text
        self._held += text
        letters = "".join(_letters(self._held))
        if not letters or (letters in self._known and len(letters) <= len(self._known)):
            return ""
        return self._join(letters)

    def flush(self) -> str:
        """What is still held, at the end of the continuation."""
        if self._joined:
            return ""
        return self._join("".join(_letters(self._held)))

    def _join(self, letters: str) -> str:
        self._joined = True
        overlap = next(
            (n for n in range(min(len(letters), len(self._known)), 0, -1) if self._known.endswith(letters[:n])), 0
        )
        held, self._held = self._held, ""
        if sum(2 if ord(char) > 0x2E7F else 1 for char in letters[:overlap]) >= _MIN_OVERLAP:
            return _after_marks(_after(held, overlap), self._said)
        rest = _without_marks(held)
        gap = " " if rest and _are_two_words(self._said[-1], rest[0]) else ""
        return gap + rest


def _letters(text: str) -> list[str]:
    """Letters and digits in lower case: what is compared."""
    return [char for char in text.lower() if char.isalnum()]


def _after(text: str, count: int) -> str:
    """`text` behind its first `count` letters."""
    seen = 0
    for index, char in enumerate(text):
        if seen == count:
            return text[index:]
        seen += len(_letters(char))
    return ""


def _without_marks(text: str) -> str:
    """Without an emoji or an ellipsis in front: the sentence goes on."""
    index = 0
    while index < len(text) and (text[index] in "….\u200d\ufe0f" or unicodedata.category(text[index]) in {"So", "Sk"}):
        index += 1
    return text[index:].lstrip() if index else text


def _after_marks(text: str, said: str) -> str:
    """Without the marks and blanks in front that stand at the end of `said` already."""
    count = 0
    while count < len(said) and not said[-count - 1].isalnum():
        count += 1
    for mark in said[len(said) - count :]:
        if text[:1] != mark:
            break
        text = text[1:]
    return text


def _are_two_words(before: str, after: str) -> bool:
    """Whether a blank is missing: two Latin letters; models cut numbers in pieces, words rarely."""
    both = before + after
    return both.isascii() and both.isalnum() and not both.isdigit()
