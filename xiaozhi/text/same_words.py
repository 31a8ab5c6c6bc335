"""Whether two recognitions hold the same words, however they are written. Pure.

Recognisers differ in how they write: "三点五十" and "3:50", "twenty" and "20", "百分之十" and "10%", "what's" and
"what is", punctuation or none. A reply prepared on one writing is as good for another. Numbers are compared by value
and never taken apart, so that "1.5" is not "15" and "twenty, five" is not "25"; where a writing could mean two numbers
it stays as it is, and equals only itself.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

from xiaozhi.text.numbers import EN_SCALES, EN_TENS, EN_UNITS, ZH_DIGITS, chinese_digits, english_value

# Full-width ASCII, typographic signs and the traditional characters of numbers. A full-width comma is no thousands
# separator.
_FOLD: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    "，\u3000’‘ʼ−﹣﹪萬億兩點負〇", "、 '''--%万亿两点负零"
)

_CONTRACTIONS: Final = (
    (r"\bcan'?t\b|\bcannot\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"\bain't\b", "is not"),
    (r"\b(do|does|did|is|are|was|were|could|would|should|have|has|had|must|need)n'?t\b", r"\1 not"),
    (r"\bi'?m\b", "i am"),
    (r"\blet's\b", "let us"),
    (r"\b(what|that|who)'?s\b|\b(it|he|she|there|here|where|when|why|how|this)'s\b", r"\1\2 is"),
    (r"\b(you|they|we)'re\b|\b(you|they)re\b", r"\1\2 are"),
    (r"\b(i|you|they|we)'ve\b", r"\1 have"),
    (r"\b(i|you|he|she|it|we|they|that|there)'ll\b", r"\1 will"),
    (r"\b(i|you|he|she|we|they)'d\b", r"\1 would"),
    (r"\bokay\b", "ok"),
    (r"\bper cent\b", "percent"),
)
_EXPAND: Final = tuple((re.compile(pattern), expanded) for pattern, expanded in _CONTRACTIONS)

_NUMERAL: Final = "零一二两三四五六七八九"
_LEXEMES: Final = re.compile(
    r"(?P<clock>(?<![0-9:.])[0-9]{1,2}:[0-5][0-9](?![0-9:]))"
    r"|(?P<grouped>[0-9]{1,3}(?:,[0-9]{3}){1,5}(?![0-9,])(?:\.[0-9]+)?)"
    r"|(?P<digits>[0-9]+(?:\.[0-9]+)*)"
    # Minutes of the clock; decimals; a whole number.
    rf"|(?P<zh>[{_NUMERAL}十][{_NUMERAL}十百千万亿]*)"
    rf"(?:点(?P<minutes>[{_NUMERAL}十]+)分(?!之)|点(?P<decimals>[{ZH_DIGITS}]+)(?![十百千]))?"
    r"|(?P<word>[a-z]+(?:'[a-z]+)*)"
    r"|(?P<minus>(?<![a-z0-9%)])-(?=[0-9]))"
    r"|(?P<percent>百分之|%)|(?P<share>分之)|(?P<blank>(?:[\s_']|-(?![0-9])|(?<=[a-z0-9%])-)+)|(?P<other>.)",
    re.DOTALL,
)
# Symbols that carry meaning beside numbers, other than the mathematical and currency signs.
_SYMBOLS: Final = frozenset("/*#@&^°℃℉‰")
_SILENT_SIGNS: Final = frozenset("~|")

_EN_NUMBER: Final = frozenset((*EN_UNITS, *EN_TENS))
_EN_DIGITS: Final = {word: str(value) for value, word in enumerate(EN_UNITS[:10])} | {"oh": "0"}
_ZH_SCALES: Final = {"百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_NEGATIVE: Final = frozenset({"-", "负", "minus", "negative"})
# A number has at most this many words ("nine hundred and ninety nine billion ..."); longer ones are left as they are.
_LONGEST_WORDS: Final = 24
# Nor are numbers of more digits calculated with; so no more than five groups of three are looked for behind the first.
_LONGEST_DIGITS: Final = 18
# Composing a run of accents takes the square of its length.
_COMPOSED_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class _Number:
    """A number as digits, `.` inside where there are decimals."""

    digits: str


@dataclass(frozen=True, slots=True)
class _Break:
    """Punctuation: it means nothing, but a number does not go on behind it."""


_Atom: TypeAlias = _Number | _Break | str


def same_words(one: str, other: str) -> bool:
    """Whether two texts are the same words, in Chinese, English or both.

    Case, blanks, punctuation and width do not count, nor whether numbers are digits or words and English contractions
    are spelt out. Two different numbers are never the same.
    """
    return one == other or normal_form(one) == normal_form(other)


def normal_form(text: str) -> str:
    """A writing that texts of the same words share: numbers as digits in angle brackets, no blanks, no punctuation."""
    pieces = (text[at : at + _COMPOSED_CHARS] for at in range(0, len(text), _COMPOSED_CHARS))
    folded = "".join(unicodedata.normalize("NFC", piece) for piece in pieces).lower().translate(_FOLD)
    for pattern, expanded in _EXPAND:
        folded = pattern.sub(expanded, folded)
    atoms = _combine(_english(_atoms(folded)))
    return "".join(
        f"⟨{atom.digits}⟩" if isinstance(atom, _Number) else atom for atom in atoms if not isinstance(atom, _Break)
    )


def _atoms(folded: str) -> list[_Atom]:
    atoms: list[_Atom] = []
    for match in _LEXEMES.finditer(folded):
        found = match.group()
        match match.lastgroup:
            case "clock":
                hours, minutes = found.split(":")
                atoms += [_Number(hours), _Number(minutes)]
            case "grouped" | "digits":
                atoms.append(_Number(found.replace(",", "")))
            case "zh" | "minutes" | "decimals":
                atoms += _chinese(match["zh"], match["minutes"], match["decimals"])
            case "word":
                atoms.append(found.replace("'", ""))
            case "minus" | "percent" | "share":
                atoms.append(found)
            case "other":
                atoms.append(_kept(found))
    return atoms


def _kept(char: str) -> _Atom:
    category = unicodedata.category(char)
    meant = char.isalnum() or char in _SYMBOLS or (category in ("Sm", "Sc") and char not in _SILENT_SIGNS)
    return char if meant else _Break()


# Chinese ----------------------------------------------------------------------------------------------------------


def _chinese(whole: str, minutes: str | None, decimals: str | None) -> list[_Atom]:
    number = chinese_digits(whole)
    if minutes is not None:  # 三点零五分, 三点五十分
        late = chinese_digits(minutes.removeprefix("零"))
        if number is None or late is None or len(late) > 2 or int(late) >= 60:
            return [*whole, "点", *minutes, "分"]
        return [_Number(number), _Number(late.zfill(2))]
    if number is None:
        # Digits one by one; anything else (三四十: thirty or forty) stays as it is.
        apart = [_Number(str(ZH_DIGITS.index(char))) if char in ZH_DIGITS else char for char in whole]
        only_digits = all(isinstance(atom, _Number) for atom in apart)
        return [*(apart if only_digits else whole), *(["点", *decimals] if decimals else [])]
    if decimals is None:
        return [_Number(number)]
    return [_Number(f"{number}.{''.join(str(ZH_DIGITS.index(char)) for char in decimals)}")]


# English ----------------------------------------------------------------------------------------------------------


def _english(atoms: list[_Atom]) -> list[_Atom]:
    """Number words as numbers, each as long as can be."""
    found: list[_Atom] = []
    at = 0
    while at < len(atoms):
        number, length = _english_at(atoms, at)
        found.append(atoms[at] if number is None else _Number(number))
        at += length
    return found


def _english_at(atoms: list[_Atom], at: int) -> tuple[str | None, int]:
    first = atoms[at]
    following = atoms[at + 1] if at + 1 < len(atoms) else None
    if not (first in _EN_NUMBER or (first == "a" and following in EN_SCALES)):
        return None, 1
    words: list[str] = []
    for atom in atoms[at : at + _LONGEST_WORDS]:
        if not isinstance(atom, str) or not (atom in _EN_NUMBER or atom in EN_SCALES or atom in ("and", "a")):
            break
        if words and {words[-1], atom} <= _EN_NUMBER and not (words[-1] in EN_TENS and atom in EN_UNITS[1:10]):
            break  # "one two" is two numbers
        words.append(atom)
    for length in range(len(words), 0, -1):
        value = english_value(words[:length])
        if value is None:
            continue
        decimals = ""
        if at + length < len(atoms) and atoms[at + length] == "point":
            for atom in atoms[at + length + 1 :]:
                digit = _EN_DIGITS.get(atom) if isinstance(atom, str) else None
                if digit is None:
                    break
                decimals += digit
        if decimals:
            return f"{value}.{decimals}", length + 1 + len(decimals)
        return str(value), length
    return None, 1


# Both -------------------------------------------------------------------------------------------------------------


def _combine(atoms: list[_Atom]) -> list[_Atom]:
    """Put scales, percents, fractions, signs and the hours of the clock together with their numbers."""
    for step in (_scaled, _timed, _shares, _signed):
        atoms = step(atoms)
    return atoms


def _scaled(atoms: list[_Atom]) -> list[_Atom]:
    """`3.5万`, `3 million`: one number, where nothing of it follows."""
    scales = _ZH_SCALES | EN_SCALES
    found: list[_Atom] = []
    for index, atom in enumerate(atoms):
        before = found[-1] if found else None
        scale = scales.get(atom) if isinstance(atom, str) else None
        following = atoms[index + 1] if index + 1 < len(atoms) else None
        goes_on = isinstance(following, _Number) or (isinstance(following, str) and following in {*scales, "and", "零"})
        if scale is not None and isinstance(before, _Number) and _is_plain(before) and not goes_on:
            value = Fraction(before.digits) * scale
            if value.denominator == 1:
                found[-1] = _Number(str(value.numerator))
                continue
        found.append(atom)
    return found


def _is_plain(number: _Number) -> bool:
    """No version number, and short enough to calculate with."""
    return number.digits.count(".") <= 1 and len(number.digits) <= _LONGEST_DIGITS


def _timed(atoms: list[_Atom]) -> list[_Atom]:
    """`3点50` and `三点五十` are `3:50`: an hour and two digits of minutes."""
    found: list[_Atom] = []
    after = -1  # where 分 means the minutes that were found
    for index, atom in enumerate(atoms):
        following = atoms[index + 1] if index + 1 < len(atoms) else None
        hour = found[-1] if found else None
        minutes = following.digits if isinstance(following, _Number) else ""
        if atom == "点" and isinstance(hour, _Number) and _is_clock(hour.digits, minutes):
            after = index + 2
            continue
        if atom == "分" and index == after:
            continue
        found.append(atom)
    return found


def _is_clock(hour: str, minutes: str) -> bool:
    two_digits = len(hour) <= 2 and hour.isdecimal() and len(minutes) == 2 and minutes.isdecimal()
    return two_digits and int(hour) <= 24 and int(minutes) < 60


def _shares(atoms: list[_Atom]) -> list[_Atom]:
    """`百分之十` and `ten percent` are `10%`; `三分之二` is `2/3`."""
    found: list[_Atom] = []
    at = 0
    while at < len(atoms):
        atom = atoms[at]
        following = atoms[at + 1] if at + 1 < len(atoms) else None
        if atom == "百分之" and following == "百":
            found += [_Number("100"), "%"]
            at += 2
        elif atom == "百分之" and isinstance(following, _Number):
            found += [following, "%"]
            at += 2
        elif atom == "分之" and isinstance(following, _Number) and found and isinstance(found[-1], _Number):
            found[-1:] = [following, "/", found[-1]]
            at += 2
        else:
            found.append("%" if atom == "percent" else atom)
            at += 1
    return found


def _signed(atoms: list[_Atom]) -> list[_Atom]:
    """`-5`, `负五` and `minus five` where nothing stands before that it could be taken from."""
    found: list[_Atom] = []
    for atom in atoms:
        sign = found[-1] if found else None
        before = found[-2] if len(found) > 1 else None
        negative = isinstance(sign, str) and sign in _NEGATIVE and not isinstance(before, _Number) and before != "%"
        if isinstance(atom, _Number) and negative:
            found[-1] = _Number(f"-{atom.digits}")
        else:
            found.append(atom)
    return found
