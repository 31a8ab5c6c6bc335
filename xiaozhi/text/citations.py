"""Marks of sources in a streamed answer, which nobody wants to hear. Pure."""

import re
from typing import Final

# RAGFlow (`[ID:0]`, `##0$$`), FastGPT (`[24 hexadecimal digits](CITE)`), OpenAI (`【4:0†file】`), Coze (`[^1^]`).
_MARK: Final = re.compile(
    r"\s?(?:\[ID:\s*\d+\]|##\d+\$\$|\[[0-9a-f]{24}\](?:\(\w{1,20}\))?|【[\d:]+†[^】]{0,80}】|\[\^\d+\^?\]|\[\[\d+\]\])"
)
# What may become one. The longest is `【` with the name of a file.
_MAX_MARK_CHARS: Final = 90
_BEGUN: Final = re.compile(
    r"\s?(?:\[(?:I(?:D(?::\s*(?:\d+)?)?)?|[0-9a-f]{1,24}|[0-9a-f]{24}\](?:\(\w{0,20})?|\^[\d^]*|\[\d*\]?)?"
    r"|##?(?:\d+\$?)?|【[\d:]*(?:†[^】]*)?|\s)\Z"
)


class CitationMarks:
    """Takes an answer in pieces and gives it without the marks; holds back only what may become one."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """The next piece; returns what of it, and of what was held, is for people."""
        text = self._held + text
        begun = _BEGUN.search(text, max(0, len(text) - _MAX_MARK_CHARS))
        end = begun.start() if begun is not None else len(text)
        whole, self._held = text[:end], text[end:]
        return _MARK.sub("", whole)

    def finish(self) -> str:
        """What is still held, at the end of the answer."""
        held, self._held = self._held, ""
        return _MARK.sub("", held)
