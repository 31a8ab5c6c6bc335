"""What of a model's text is shown on the device and what is said. Pure; one clause at a time.

Blocks of code and thinking span clauses and are removed before (`xiaozhi.text.hidden`).
"""

import re
from typing import Final, NamedTuple

from xiaozhi.text.emotions import is_emoji
from xiaozhi.text.messages import INTERRUPTED_EN, INTERRUPTED_ZH
from xiaozhi.text.units import is_cjk, speakable_chars


class Spoken(NamedTuple):
    """One clause, cleaned; `speech` is empty when nothing of it can be said."""

    text: str
    speech: str


_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:\s+\"[^\"]*\")?\)")
_AUTO_LINK: Final = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]{0,60}>")
_RULE: Final = re.compile(r"^[\s|:*_=+-]{3,}$", re.MULTILINE)
_LINE_MARK: Final = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*+•][ \t]+|>[ \t]?)+", re.MULTILINE)
_TABLE_ROW: Final = re.compile(r"^[ \t]*\|(.*?)\|?[ \t]*$", re.MULTILINE)
_CODE_OR_STRONG: Final = re.compile(r"\*\*+|__+|~~|`+|\$\$|\\[()\[\]]")
_LONE_STAR: Final = re.compile(r"(?<![\d\s)])\*|\*(?![\d\s(])")  # "2 * 3" keeps its star
_LONE_UNDERSCORE: Final = re.compile(r"(?<![A-Za-z0-9])_(?=\S)|(?<=\S)_(?![A-Za-z0-9])")
_ESCAPE: Final = re.compile(r"\\(?=[^\w\s])")
_BLANKS: Final = re.compile(r"\s+")
_BLANK_BESIDE_CHINESE_MARK: Final = re.compile(r"\s+(?=[，。！？；：、…])|(?<=[，。！？；：、])\s+")
# What is left of the clause before: the second of two marks, a quote that closes.
_LEFTOVER: Final = re.compile(r"^[\s，。！？；：、,.!?;:…”’」』）)】》\]}~～·—]+(?!\d)")

_URL: Final = re.compile(r"(?:https?://|www\.)[^\s\u3000-\u303f\u3400-\u9fff\uff00-\uffef<>\"”）]+", re.IGNORECASE)
# Longer than any word: hashes, keys, the rest of an address that had to be cut.
_ENDLESS: Final = re.compile(r"[!-~]{41,}")
# Faces drawn with signs, as in (^_^) or (｡･ω･｡): brackets around something that holds no word.
_KAOMOJI: Final = re.compile(
    r"[(（](?![^()（）]*(?:[\u3400-\u9fff]|[A-Za-z0-9]{2,}))(?=[^()（）]*[\^_;=><≧≦ω´`｀•・･｡˘ᴗ▽﹏╥ಥ°◕益])[^()（）]{2,16}[)）]"
    r"[\u3063\u30ce\uff89\u0648\u2727~～]*"
)
_ARROW: Final = re.compile(r"\s*[\u2190-\u21ff\u27f5-\u27ff]+\s*")
_UNSAID: Final = re.compile(r"[\[\]{}|\\^`※§¶★☆●○■□▲△◆◇•]+|(?<!\d)[~～]+|[~～]+(?!\d)")  # "3~5" is a range
_ENDS_WITH_MARK: Final = re.compile(r"[，。！？；：、…,.!?;:]$")


def speakable(raw: str) -> Spoken:
    """Clean one clause: emoji, kaomoji and markup go from both, addresses and signs from the speech.

    Numbers, units and currency signs are left as they are; voices read them.
    """
    text = _without_emoji(raw)
    for mark in (INTERRUPTED_ZH, INTERRUPTED_EN):  # a model may copy what it sees in its history
        text = text.replace(mark, "")
    text = _without_markup(_KAOMOJI.sub("", text))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    shown = _tidy(" ".join(lines))
    said = _tidy(_unsaid_removed(_joined_with_pauses(lines)))
    return Spoken(shown, said if speakable_chars(said) else "")


def _without_emoji(text: str) -> str:
    if text.isascii():
        return text
    return "".join(char for char in text if not is_emoji(char) and char != "\ufffd")


def _without_markup(text: str) -> str:
    text = _LINK.sub(r"\1", text)
    text = _AUTO_LINK.sub(r"\1", text)
    text = _TAG.sub(" ", text)
    text = _RULE.sub("", text)
    text = _LINE_MARK.sub("", text)
    text = _TABLE_ROW.sub(_row, text)
    if _URL.search(text) is None:  # addresses are full of underscores and stars
        text = _CODE_OR_STRONG.sub("", text)
        text = _LONE_STAR.sub("", text)
        text = _LONE_UNDERSCORE.sub("", text)
    else:
        text = text.replace("**", "").replace("`", "")
    return _ESCAPE.sub("", text)


def _row(match: re.Match[str]) -> str:
    cells = [cell.strip() for cell in match[1].split("|")]
    comma = "，" if any(map(is_cjk, match[1])) else ", "
    return comma.join(cell for cell in cells if cell)


def _joined_with_pauses(lines: list[str]) -> str:
    """Lines in one, with a comma where a line ends without any mark: the voice must not run list items together."""
    joined = ""
    for line in lines:
        if joined and not _ENDS_WITH_MARK.search(joined):
            joined += "，" if is_cjk(joined[-1]) or is_cjk(line[0]) else ","
        joined += (" " if joined else "") + line
    return joined


def _unsaid_removed(text: str) -> str:
    text = _URL.sub(" ", text)
    text = _ENDLESS.sub(" ", text)
    text = _ARROW.sub("，" if any(map(is_cjk, text)) else ", ", text)
    return _UNSAID.sub(" ", text)


def _tidy(text: str) -> str:
    text = _BLANKS.sub(" ", text)
    text = _BLANK_BESIDE_CHINESE_MARK.sub("", text)
    return _LEFTOVER.sub("", text).strip()
