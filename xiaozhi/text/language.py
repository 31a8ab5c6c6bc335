"""Which language a text is in, by its script, and which of our two it is answered in."""

from typing import Final

# A Chinese sentence may hold English names and an English one a Chinese word: a Chinese character says about as much
# as four letters.
_LETTERS_PER_CHARACTER: Final = 4
_CHINESE: Final = frozenset({"zh", "yue"})


def is_chinese(language: str) -> bool:
    """Whether this talker is answered in Chinese (`zh`, `yue`); everybody else is answered in English."""
    return language in _CHINESE


def language_of(text: str, *, default: str = "zh") -> str:
    """The language of a text: `zh`, `en`, `ja`, `ko`.

    Args:
        text: any text.
        default: returned when there is nothing to go by (digits, symbols), and where the script fits it as well as
            our guess: Chinese characters are `yue` for a talker of `yue`, Latin letters `de` for a talker of `de`.
    """
    han = kana = hangul = latin = 0
    for char in text:
        if "\u3400" <= char <= "\u9fff" or "\U00020000" <= char <= "\U0003ffff":
            han += 1
        elif "\u3040" <= char <= "\u30ff" and char != "・":
            kana += 1
        elif "\uac00" <= char <= "\ud7af":
            hangul += 1
        elif char.isalpha():
            latin += 1
    if not han + kana + hangul + latin:
        return default
    if (han + kana + hangul) * _LETTERS_PER_CHARACTER < latin:
        return default if default not in {"", "zh", "yue", "ja", "ko"} else "en"
    if hangul > han and hangul > kana:
        return "ko"
    if kana * 4 >= han and kana:
        return "ja"
    return default if default in {"yue", "ja"} else "zh"
