"""Which words a service listens for: those of the settings, and the names that are said in this house. Pure."""

import re
from collections.abc import Iterable
from typing import Final

MAX_HOTWORDS: Final = 100
"""Of one request: what Deepgram and OpenAI take at most; Tencent takes 128, FunASR more."""
# Separators of some services' lists are in none, and what is longer is a sentence.
_WORD: Final = re.compile(r"[^|,\s\x00-\x1f\x7f][^|,\x00-\x1f\x7f]{0,29}")


def hotwords(
    own: Iterable[str], names: Iterable[str], *, max_words: int = MAX_HOTWORDS, max_chars: int = 1000
) -> list[str]:
    """The words of the settings, all of them, and behind them as many names as there is room for; none twice.

    Args:
        own: of the settings.
        names: the most important first; what is no word of 1 to 30 characters is left out.
        max_words: in all.
        max_chars: of all together.
    """
    words = list(dict.fromkeys(own))
    known, chars = {word.casefold() for word in words}, sum(map(len, words))
    for name in names:
        name = name.strip()
        if len(words) >= max_words:
            break
        if name.casefold() in known or len(name) < 2 or chars + len(name) > max_chars or not _WORD.fullmatch(name):
            continue
        words.append(name)
        known.add(name.casefold())
        chars += len(name)
    return words
