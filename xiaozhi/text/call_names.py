"""Which tool a model means, however it writes the name. Pure."""

import re
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"[\w.-]+")
_MAX_CHARS: Final = 256


def offered_name(written: str, offered: Iterable[str]) -> str | None:
    """The one of the names that is meant; None when it is none of them, or could be several.

    Models put a namespace in front (`functions.get_time`, `default_api:get_time`), a number or a channel behind
    (`get_time:0`, `get_time<|channel|>commentary`), write it in other letters, or with marks around it.
    """
    names, written = list(offered), written[:_MAX_CHARS]
    if written in names:
        return written
    plain: dict[str, str | None] = {}
    for name in names:
        plain[_letters(name)] = None if _letters(name) in plain else name
    words = _WORD.findall(written)
    parts = [written, *words, *(part for word in words for part in _ends(word))]
    found = {meant for part in parts if (meant := plain.get(_letters(part)))}
    return found.pop() if len(found) == 1 else None


def _ends(word: str) -> list[str]:
    """`a.b.c` without its first parts: `b.c`, `c`."""
    parts = word.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
