"""How many tokens a language model will count in a text, without its tokeniser. Pure."""

import re
from typing import Final

from xiaozhi.text.units import is_cjk

# An estimate on the safe side: byte-pair vocabularies of today hold most common Chinese words of two characters, so a
# character costs 0.6 to 1 token; an English word is one token up to about six letters; digits come in threes; of marks
# and emoji each is one or more.
_WORD: Final = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_LETTERS_PER_TOKEN: Final = 6
_DIGITS_PER_TOKEN: Final = 3
_CJK_TOKENS: Final = 0.9

MESSAGE_TOKENS: Final = 4
"""What the frame of one message (its role and marks) costs."""


def tokens_of(text: str) -> int:
    """About how many tokens a text has; 0 for an empty one. Never much too low for Chinese, Japanese or English."""
    cjk = sum(map(is_cjk, text))
    rest = text if not cjk else "".join(" " if is_cjk(char) else char for char in text)
    count = cjk * _CJK_TOKENS
    for word in _WORD.findall(rest):
        if word.isdigit():
            count += -(-len(word) // _DIGITS_PER_TOKEN)
        elif word.isalpha():
            count += -(-len(word) // _LETTERS_PER_TOKEN)
        else:
            count += 1 if word.isascii() else 2
    return -int(-count // 1)
