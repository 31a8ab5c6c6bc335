"""Wishes about volume and brightness, understood without a model: "大声一点", "volume fifty". Pure."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from xiaozhi.text.numbers import chinese_number, english_number

Dial: TypeAlias = Literal["volume", "brightness"]

_STEP: Final = 15
"""What "a bit louder" means, in percent: six steps from silent to full."""
_MAX_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """Turn a dial to `percent`, or by `change` percent when that is None."""

    dial: Dial
    percent: int | None
    change: int = 0


_HAN: Final = re.compile("[一-鿿]")
_TO_ZH: Final = re.compile(
    r"^(?:请|帮我)?(?:把|将)?(?P<dial>音量|声音|屏幕亮度|亮度|屏幕)(?:调|设|开|改)(?:整|置)?(?:到|成|为|至)"
    r"(?:百分之)?(?P<number>\d{1,3}|[零一二两三四五六七八九十百]{1,5})(?:%|格)?$"
)
_TO_EN: Final = re.compile(
    r"^(?:please )?(?:set |turn |change )?(?:the )?(?P<dial>volume|brightness)(?: up| down)?(?: to| at)? "
    r"(?P<number>\d{1,3}|[a-z][a-z -]{1,24}?)(?: ?%| percent)?$"
)
_BIT: Final = "(?:一?点儿?)?"
_LOUDER: Final = (
    "(?:声音|音量)?再?(?:大|响|高)声?一?点儿?声?",
    f"(?:声音|音量)(?:调|开)(?:大|高|响){_BIT}",
    "大声一?点儿?",
    "(?:声音|音量)太(?:小|轻)了?",
    "(?:speak )?louder",
    "(?:turn )?(?:the )?(?:volume|it) up(?: a (?:bit|little))?",
    "turn up (?:the )?volume",
    "a bit louder",
)
_QUIETER: Final = (
    "(?:声音|音量)?再?(?:小|轻|低)声?一?点儿?声?",
    f"(?:声音|音量)(?:调|开)(?:小|低|轻){_BIT}",
    "小声一?点儿?",
    "(?:声音|音量)?太(?:大声|响|吵)了?",
    "(?:声音|音量)太大了?",
    "(?:speak )?(?:quieter|softer)",
    "(?:turn )?(?:the )?(?:volume|it) down(?: a (?:bit|little))?",
    "turn down (?:the )?volume",
    "a bit quieter",
)
_SILENT: Final = ("静音", "(?:声音|音量)关掉?了?", "mute(?: yourself)?", "(?:turn )?(?:the )?volume off")
_LOUDEST: Final = (
    "(?:声音|音量)(?:调|开)?到?最(?:大|高)",
    "(?:full|maximum|max) volume",
    "(?:turn )?the volume (?:all the way up|to the max)",
)
_BRIGHTER: Final = (
    "(?:屏幕|亮度)再?调?(?:亮|高)一?点儿?",
    "亮度调(?:亮|高)",
    "(?:make )?(?:the )?screen brighter",
    "brighter",
    "(?:turn )?(?:the )?brightness up",
)
_DARKER: Final = (
    "(?:屏幕|亮度)再?调?(?:暗|低)一?点儿?",
    "亮度调(?:暗|低)",
    "(?:make )?(?:the )?screen darker",
    "darker",
    "dim the screen",
    "(?:turn )?(?:the )?brightness down",
)


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"^(?:请|帮我|把|please )*(?:{'|'.join(patterns)})(?:吧|啊|呀| please)?$")


_WISHES: Final[tuple[tuple[re.Pattern[str], Wish], ...]] = (
    (_any_of(_LOUDER), Wish("volume", None, _STEP)),
    (_any_of(_QUIETER), Wish("volume", None, -_STEP)),
    (_any_of(_SILENT), Wish("volume", 0)),
    (_any_of(_LOUDEST), Wish("volume", 100)),
    (_any_of(_BRIGHTER), Wish("brightness", None, _STEP)),
    (_any_of(_DARKER), Wish("brightness", None, -_STEP)),
)


def wish(text: str) -> Wish | None:
    """The dial a user wants turned; None when the text is anything else. For use before any model."""
    plain = re.sub(r"[\s，。,.!！?？]+", " ", text.lower()).strip()
    if not plain or len(plain) > _MAX_CHARS:
        return None
    if _HAN.search(plain):
        plain = plain.replace(" ", "")
    if match := _TO_ZH.match(plain) or _TO_EN.match(plain):
        percent = _percent(match["number"])
        if percent is not None:
            return Wish("volume" if match["dial"] in ("音量", "声音", "volume") else "brightness", percent)
    return next((wanted for pattern, wanted in _WISHES if pattern.match(plain)), None)


def _percent(text: str) -> int | None:
    try:
        if text.isascii() and text.isdigit():
            number = Fraction(text)
        elif text.isascii():
            number = english_number(text.replace("-", " ").split())
        else:
            number = chinese_number(text)
    except (ValueError, KeyError):
        return None
    return int(number) if number.denominator == 1 and 0 <= number <= 100 else None
