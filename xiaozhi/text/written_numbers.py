"""Numbers as they are properly written out, in Chinese and English; anything else is none. Pure.

Strict where `text/arithmetic.py` is lenient: a number counts only if writing its value out gives the same words.
"""

import re
from typing import Final

from xiaozhi.text.arithmetic import chinese_number, english_number

ZH_DIGITS: Final = "零一二三四五六七八九"
_TEN_INSIDE: Final = re.compile("(?<=[百零])十")  # 一百十五 for 一百一十五
# Longer ones are left alone.
_LONGEST_ZH: Final = 24

EN_UNITS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split()
)
EN_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()
EN_SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}


def chinese_digits(run: str) -> str | None:
    """The digits of a number as it is properly written or read out digit by digit; None for all else.

    Two digits side by side are no number of two digits ("三五个" are three to five), unless one is a zero.
    """
    if len(run) == 1 and run in ZH_DIGITS:
        return str(ZH_DIGITS.index(run))
    if run == "两":
        return "2"
    if all(char in ZH_DIGITS for char in run):
        digits = "".join(str(ZH_DIGITS.index(char)) for char in run)
        return digits if len(run) > 2 or "0" in digits else None
    if not 0 < len(run) <= _LONGEST_ZH or "两十" in run or run.endswith("两"):
        return None
    try:
        value = int(chinese_number(run))
    except ValueError:
        return None
    full = _TEN_INSIDE.sub("一十", run.replace("两", "二"))
    return (
        str(value) if full.removeprefix("一" if full.startswith("一十") else "") in _chinese_writings(value) else None
    )


def _chinese_writings(value: int) -> frozenset[str]:
    """A number as it is written out, and with its last unit left out where it may be: 三千五百, 三千五."""
    written = _chinese_written(value)
    shown = written.removeprefix("一" if written.startswith("一十") else "")
    shortened = len(shown) >= 4 and f"{shown[-3]}{shown[-1]}" in ("百十", "千百", "万千")
    return frozenset({shown, shown[:-1]} if shortened else {shown})


def _chinese_written(value: int) -> str:
    for unit, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if value >= unit:
            rest = value % unit
            zero = "零" if 0 < rest < unit // 10 else ""
            return _chinese_written(value // unit) + name + (zero + _chinese_written(rest) if rest else "")
    return ZH_DIGITS[value]


def english_value(words: list[str]) -> int | None:
    """The value of words that are a number properly said, else None."""
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
