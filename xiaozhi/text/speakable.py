"""What of a model's text is shown on the device and what is said. Pure; one clause at a time.

What spans clauses (blocks of code, tags, entities, formulas) has been made plain before: `xiaozhi.text.markup`.
"""

import re
from typing import Final, NamedTuple

from xiaozhi.text.emotions import is_emoji
from xiaozhi.text.language import is_chinese, language_of
from xiaozhi.text.latex import on_screen
from xiaozhi.text.markup import Markup
from xiaozhi.text.messages import INTERRUPTED_EN, INTERRUPTED_ZH
from xiaozhi.text.read_aloud import read_aloud
from xiaozhi.text.units import is_cjk, speakable_chars


class Spoken(NamedTuple):
    """One clause, cleaned; `speech` is empty when nothing of it can be said."""

    text: str
    speech: str


_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:\s+\"[^\"]*\")?\)")
_AUTO_LINK: Final = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_RULE: Final = re.compile(r"^[ \t|:*_=+-]{3,}$", re.MULTILINE)
_LINE_MARK: Final = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*+•][ \t]+|>(?![ \t]?\d)[ \t]?)+", re.MULTILINE)
_TABLE_ROW: Final = re.compile(r"^[ \t]*\|([^\n]*)\|[ \t]*$", re.MULTILINE)
_CODE_OR_STRONG: Final = re.compile(r"\*\*+|__+|(?<!~)~~(?!~)|`+|\$\$")
# 2**10 and a*b: one sign between two things to calculate with; more of them in a word are emphasis.
_POWER: Final = re.compile(r"((?<![\w*])(?:[A-Za-z]|\d+)|(?<=\w)\))\*\*(?=-?\(?(?:[A-Za-z]|\d+)(?![\w*]))", re.ASCII)
_TIMES: Final = re.compile(r"((?<![\w*])\w+|(?<=\w)\))\*(?=\w+(?![\w*])|\()", re.ASCII)
_LONE_STAR: Final = re.compile(r"(?<![\d\s)])\*|\*(?![\d\s(])")  # "2 * 3" keeps its star
_LONE_UNDERSCORE: Final = re.compile(r"(?<![A-Za-z0-9∑∏∫])_(?=\S)|(?<=\S)_(?![A-Za-z0-9({])")
_ESCAPE: Final = re.compile(r"\\(?=[^\w\s])")
_BLANKS: Final = re.compile(r"\s+")
_BLANK_BESIDE_CHINESE_MARK: Final = re.compile(r" (?=[，。！？；：、…])|(?<=[，。！？；：、]) ")
# What is left of the clause before: the second of two marks, a quote that closes.
_LEFTOVER: Final = re.compile(r"^[\s，。！？；：、,.!?;:…”’」』）)】》\]}~～·—]+(?!\d)")

_URL: Final = re.compile(r"(?:https?://|www\.)[^\s\u3000-\u303f\u3400-\u9fff\uff00-\uffef<>\"”）]+", re.IGNORECASE)
_TAG: Final = re.compile(
    r"<(/?)([A-Za-z][\w.:-]*)(?:\s+[\w.:-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))*\s*/?>(?P<next>[A-Za-z0-9]?)"
)
_INSTRUCTION: Final = re.compile(r"<[?!][^<>]*>")
# What may be a hash, a key or encoded bytes; whether it is one, the mixture of its characters tells.
_TOKEN: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|(?P<long>[A-Za-z0-9+/_-]{24,}=*)")
_MIXTURE: Final = re.compile(r"(?<=[0-9])[A-Za-z]|(?<=[A-Za-z])[0-9]|(?<=[a-z])[A-Z]")
_CHARS_PER_CHANGE: Final = 5
# Faces drawn with signs, as in (^_^) or (｡･ω･｡): brackets around something that holds no word.
_KAOMOJI: Final = re.compile(
    r"[>^T][_﹏]+[<^T](?!\w)|[(（](?=[^()（）]{2,16}[)）])"
    r"(?![^()（）]*(?:[\u3400-\u9fff]|[A-Za-z0-9]{2,}|[A-Za-z0-9] ?[=<>^;] ?[A-Za-z0-9]|[A-Za-z]_[0-9]))"
    r"(?=[^()（）]*[\^_;=><≧≦ω´`｀•・･｡˘ᴗ▽﹏╥ಥ°◕益])[^()（）]{2,16}[)）][\u3063\u30ce\uff89\u0648\u2727~～]*"
)
_ASCII_ARROW: Final = re.compile(r" ?(?:<?[-=]{1,3}>|<-{1,3}(?![\d-])) ?")
_ARROW: Final = re.compile(r" ?[\u2190-\u21ff\u27f5-\u27ff]+ ?|(?<=\w) ?>+ ?(?=\w)")
_UNSAID: Final = re.compile(r"[\[\]{}|\\^`<>※§¶★☆●○■□▲△◆◇•]+|(?<!\d)[~～]+|[~～]+(?!\d)")  # "3~5" is a range
_ENDS_WITH_MARK: Final = re.compile(r"[，。！？；：、…,.!?;:]$")


def speakable(raw: str, *, language: str = "") -> Spoken:
    """Clean a text that stands alone, such as one whole sentence: `cleaned`, after its markup has been read."""
    markup = Markup()
    return cleaned(markup.push(raw) + markup.flush(), language=language)


def cleaned(text: str, *, language: str = "") -> Spoken:
    """Clean one clause: emoji, kaomoji and marks go from both, addresses and signs from the speech.

    Numbers, units and currency signs are left as they are; voices read them. Formulas are written out in the speech.

    Args:
        text: without markup that spans clauses.
        language: of the speech where the text does not show its own, such as a formula; English when empty.
    """
    text = _without_emoji(text)
    for mark in (INTERRUPTED_ZH, INTERRUPTED_EN):  # a model may copy what it sees in its history
        text = text.replace(mark, "")
    text = _without_marks(_KAOMOJI.sub("", text))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    shown = _tidy(on_screen(" ".join(lines)))
    said = _joined_with_pauses(lines)
    said = _tidy(_signs_said(_BLANKS.sub(" ", said), language_of(said, default=language)))
    return Spoken(shown, said if speakable_chars(said) else "")


def _without_emoji(text: str) -> str:
    if text.isascii():
        return text
    return "".join(char for char in text if not is_emoji(char) and char != "\ufffd")


def _without_marks(text: str) -> str:
    text = _LINK.sub(r"\1", text)
    text = _AUTO_LINK.sub(r"\1", text)
    text = _RULE.sub("", text)
    text = _LINE_MARK.sub("", text)
    text = _TABLE_ROW.sub(_row, text)
    if _URL.search(text) is None:  # addresses are full of underscores and stars
        text = _TIMES.sub(r"\1∗", _POWER.sub(r"\1^", text))
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
    joined: list[str] = []
    for line in lines:
        if joined and not _ENDS_WITH_MARK.search(joined[-1]):
            joined.append("，" if is_cjk(joined[-1][-1]) or is_cjk(line[0]) else ",")
        joined.append(f" {line}" if joined else line)
    return "".join(joined)


def _signs_said(text: str, language: str) -> str:
    """What no voice can say goes, and what it would stumble over is written out."""
    text = _URL.sub(" ", text)
    text = _TOKEN.sub(lambda match: " " if match["long"] is None or _is_random(match[0]) else match[0], text)
    if "<" in text or ">" in text:
        text = _TAG.sub(_tag_said, _INSTRUCTION.sub(" ", text))
    pause = "，" if is_chinese(language) else ", "
    text = _ASCII_ARROW.sub(pause, text)
    if language == "en" or is_chinese(language):  # the words of other languages are not known
        text = read_aloud(text, chinese=is_chinese(language))
    return on_screen(_UNSAID.sub(" ", _ARROW.sub(pause, text)))


def _is_random(token: str) -> bool:
    return any(map(str.isdigit, token)) and len(_MIXTURE.findall(token)) * _CHARS_PER_CHANGE >= len(token)


def _tag_said(match: re.Match[str]) -> str:
    """The name of a key or of an element is said; a<b>c compares."""
    closes, name, following = match[1], match[2], match["next"]
    before = match.string[match.start() - 1 : match.start()]
    if len(name) == 1 and not closes and following and before.isascii() and before.isalnum():
        return match[0]
    return f"{' ' if closes else f' {name} '}{following}"


def _tidy(text: str) -> str:
    text = _BLANKS.sub(" ", text)
    text = _BLANK_BESIDE_CHINESE_MARK.sub("", text)
    return _LEFTOVER.sub("", text).strip()
