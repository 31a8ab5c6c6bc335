"""Numbers in words, Chinese and English. Pure.

Chinese whole numbers are read by cn2an, whose leniency is bounded: what it makes of a text counts only where writing
the value out again gives the same words. Loading it takes 150 ms of a processor and 6 MB (two thirds of it compile its
expressions), so it is loaded with the first number that needs it; a server does so at its start, see `load`.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

ZH_DIGITS: Final = "零一二三四五六七八九"
_ZH_DIGIT: Final = {char: str(value) for value, char in enumerate(ZH_DIGITS)} | {"〇": "0", "两": "2"}
_ZH_UNITS: Final = frozenset("百千万亿")
# A zero that stands for places left out, and a ten without its one: 三百零五, 三百十五.
_ZERO_INSIDE: Final = re.compile("(?<=[十百千万亿])[零〇](?=[一二三四五六七八九十])")
_TEN_ALONE: Final = re.compile("(?<![一二三四五六七八九])十")
# Written out, nine hundred and ninety nine million … has 23 characters; cn2an tries hard on what is no number.
_MAX_ZH_CHARS: Final = 24
# 一亿五 is a hundred and fifty million; cn2an knows this of 万 and below.
_TEN_MILLIONS: Final = re.compile("(?<=亿)[一二两三四五六七八九]$")

EN_UNITS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split()
)
EN_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()
EN_SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_EN_SMALL: Final = {word: value for value, word in enumerate(EN_UNITS)} | {"oh": 0}
_EN_TEN: Final = {word: 10 * value for value, word in enumerate(EN_TENS, start=2)}


def load() -> None:
    """Load what reads Chinese numbers. Blocking: some 150 ms; without it the first number takes that long."""
    _zh_whole("十一")


def chinese_number(text: str) -> Fraction:
    """A number in Chinese characters: 三十五, 一百零二, 三千五, 百万, 二零二四 (read digit by digit), 三点一四.

    Raises:
        ValueError: the characters make no number.
    """
    whole, _, decimals = text.partition("点")
    if not whole or not all(char in _ZH_DIGIT for char in decimals):
        raise ValueError(f"{text!r} is no number")
    if all(char in _ZH_DIGIT for char in whole):
        value = int("".join(_ZH_DIGIT[char] for char in whole))
    else:
        value = _zh_whole(f"一{whole}" if set(whole) <= _ZH_UNITS else whole)
    return value + Fraction(int("".join(_ZH_DIGIT[char] for char in decimals) or "0"), 10 ** len(decimals))


def chinese_digits(run: str) -> str | None:
    """The digits of a whole number as it is properly written or read out digit by digit; None for all else.

    Two digits side by side are no number of two digits ("三五个" are three to five), unless one is a zero; and a unit
    without a number before it is none ("千万" is "by all means", and "百" a word like "hundred").
    """
    if all(char in ZH_DIGITS for char in run):
        digits = "".join(_ZH_DIGIT[char] for char in run)
        return digits if len(run) != 2 or "0" in digits else None
    if run == "两":
        return "2"
    try:
        return None if run[0] in _ZH_UNITS else str(_zh_whole(run))
    except ValueError:
        return None


@lru_cache(1024)
def _zh_whole(text: str) -> int:
    """The value of a number with units. Raises `ValueError`."""
    import cn2an

    if text.endswith("亿亿") and text[0] not in "零〇":  # above the range of cn2an, and too large a number
        head = text.rstrip("亿")
        return int(_zh_whole(head or "一") * 10 ** (8 * (len(text) - len(head))))
    if len(text) > _MAX_ZH_CHARS or "两十" in text or text.endswith("两"):
        raise ValueError(f"{text!r} is no number")
    said = _TEN_MILLIONS.sub(r"\g<0>千万", text)
    try:
        value = int(cn2an.cn2an(said, "smart"))
        written = _zh_plain(cn2an.an2cn(value))
    except (KeyError, ValueError):  # KeyError: it took a text for a number, and looked for a unit that there is not
        raise ValueError(f"{text!r} is no number") from None
    # The last unit may be left out: 三千五 is 三千五百.
    if _zh_plain(said) not in (written, written[:-1]):
        raise ValueError(f"{text!r} is no number")
    return value


def _zh_plain(text: str) -> str:
    """What 三百一十 and 三百十, 两千 and 二千, 一千零五十 and 一千五十 share."""
    return _TEN_ALONE.sub("一十", _ZERO_INSIDE.sub("", text.replace("两", "二")))


def english_number(words: list[str]) -> Fraction:
    """A number in English words: twenty three, one hundred and five, two point five, a thousand.

    Raises:
        ValueError: the words make no number.
    """
    if "point" in words:
        at = words.index("point")
        decimals = words[at + 1 :]
        if not decimals or any(word not in _EN_SMALL or _EN_SMALL[word] > 9 for word in decimals):
            raise ValueError("no decimals")
        whole = english_number(words[:at]) if at else Fraction(0)
        return whole + Fraction(int("".join(str(_EN_SMALL[word]) for word in decimals)), 10 ** len(decimals))
    total = section = 0
    last = 0  # what the word before was worth, to refuse "five three"
    for index, word in enumerate(words):
        if word in _EN_SMALL and (last == 0 or last >= 100 or (last >= 20 and _EN_SMALL[word] < 10)):
            section += _EN_SMALL[word]
            last = _EN_SMALL[word] or 1
        elif word in _EN_TEN and (last == 0 or last >= 100):
            section += _EN_TEN[word]
            last = _EN_TEN[word]
        elif word == "a" and index == 0 and len(words) > 1:
            section, last = 1, 1
        elif word == "hundred" and 0 < section < 100:
            section, last = section * 100, 100
        elif word in EN_SCALES and word != "hundred" and section:
            total, section, last = total + section * EN_SCALES[word], 0, EN_SCALES[word]
        elif word == "and" and last >= 100 and index < len(words) - 1:
            continue
        else:
            raise ValueError(f"{word!r} does not fit")
    if not words:
        raise ValueError("no words")
    return Fraction(total + section)


def english_value(words: list[str]) -> int | None:
    """The value of words that are a whole number properly said, else None."""
    said = ["one" if word == "a" else word for word in words if word != "and"]
    if "and" in (words[0], words[-1]) or "a" in words[1:]:
        return None
    try:
        value = int(english_number(said))
    except ValueError:
        return None
    return value if said == _english_written(value) else None


def _english_written(value: int) -> list[str]:
    for word, scale in reversed(EN_SCALES.items()):
        if value >= scale:
            rest = value % scale
            return [*_english_written(value // scale), word, *(_english_written(rest) if rest else [])]
    if value < 20:
        return [EN_UNITS[value]]
    return [EN_TENS[value // 10 - 2], *([EN_UNITS[value % 10]] if value % 10 else [])]
