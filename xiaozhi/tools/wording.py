"""Which of two languages a sentence is said in, and texts cut and compared."""

import re
import unicodedata
from typing import Final

from xiaozhi.text.language import is_chinese

_NOT_LETTERS: Final = re.compile(r"[\W_]+")


def pick(language: str, chinese: str, english: str) -> str:
    """The Chinese or the English sentence."""
    return chinese if is_chinese(language) else english


def shortened(text: str, max_chars: int) -> str:
    """The text, cut to at most `max_chars` characters with an ellipsis as the last of them."""
    return text if len(text) <= max_chars else text[: max(0, max_chars - 1)] + "…"


def plain(text: str) -> str:
    """Lower case, without blanks and punctuation, full-width forms made ordinary."""
    return _NOT_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())
