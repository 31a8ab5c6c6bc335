"""Markup of a reply that arrives in pieces, made plain: blocks of code, tags, entities, formulas. Pure.

What spans more than a clause is decided here, character by character, before the reply is cut into clauses; what does
not (emphasis, links, lists) is left to `xiaozhi.text.speakable`.
"""

import re
from enum import Enum, auto
from html import unescape
from html.entities import html5
from typing import Final, TypeAlias

from xiaozhi.text.latex import arguments_of, one_line
from xiaozhi.text.units import is_cjk

# Tags that format a text, and those that are for a voice: nothing of them is shown.
_FORMATTING: Final = frozenset(
    "a abbr b big blockquote body br center cite code dd del details div dl dt em font h1 h2 h3 h4 h5 h6 hr html i "
    "img ins kbd li mark ol p pre q rp rt ruby s samp small span strike strong sub summary sup table tbody td th "
    "thead tr tt u ul video wbr".split()
)
_SPEECH: Final = frozenset(
    "audio speak voice prosody break emphasis say-as phoneme lang w express-as silence bookmark viseme effect sound "
    "music tts emotion emoji expression mood tone speaker gesture motion pause laugh laughs laughter chuckle sigh "
    "cough sniffle groan yawn gasp breath answer response final_answer solution output".split()
)
# Others of HTML, without attributes names like any: they are left out only with them.
_ELEMENTS: Final = frozenset(
    "address area article aside base bdi bdo button canvas caption col dfn embed fieldset figcaption figure footer "
    "form head header iframe input label legend link main map meta nav object option param picture path script "
    "section select source style svg textarea tfoot time title track var".split()
)
_BREAKING: Final = frozenset("br p div li tr hr h1 h2 h3 h4 h5 h6 ul ol dl dt dd table section blockquote".split())
_NEVER_APART: Final = frozenset({"br", "hr", "p", "li", "wbr"})
_EMBEDDING: Final = frozenset("src href url".split())
# Attributes that stand without a value.
_FLAGS: Final = frozenset(
    "allowfullscreen async autofocus autoplay checked controls default defer disabled hidden loop multiple muted "
    "novalidate open playsinline readonly required reversed selected".split()
)
_LOUD: Final = frozenset({"BR", "HR", "IMG"})  # others in capitals are keys: <Tab>, <DEL>
_APART: Final = frozenset(" 、，。；：？！,.;:?!")
_MENTIONED: Final = ("标签", "元素", "标记", "tag", "element")
_TAG: Final = re.compile(r"</?([A-Za-z][\w:.-]{0,39})(\s*/?>)?", re.ASCII)
_ATTRIBUTE: Final = re.compile(r"\s+([A-Za-z_][\w:.-]{0,39})(?:\s*=|(?=[\s/>]))", re.ASCII)
_ATTRIBUTE_BEGUN: Final = re.compile(r"\s*/?\Z|\s+[A-Za-z_][\w:.-]{0,39}\s*\Z", re.ASCII)
_TOKEN: Final = re.compile(r"<[|｜][^<>|｜\n]{1,80}[|｜]>")
_TOKEN_BEGUN: Final = re.compile(r"<(?:[|｜][^<>|｜\n]{0,80}[|｜]?|!-?|/)?\Z")
_VARIABLE: Final = re.compile(r"(?:^|[^A-Za-z0-9])(?:[A-Za-z]|\d+)\Z")
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")
_ENTITY_BEGUN: Final = re.compile(r"&#?[A-Za-z0-9]{0,32}\Z")

_FENCE: Final = re.compile(
    r"(?: {0,12}(?P<ticks>`{3,})| {0,3}(?P<tildes>~{3,}))[ \t]*(?P<info>[\w+#.:/-]{0,40})[ \t]*"
    r"(?:\{[^\n`]{0,100}|[\w-]{1,20}=[^\n`]{0,100})?(?:\n|\Z)",
    re.ASCII,
)
_FENCE_BEGUN: Final = re.compile(
    r" {0,12}(?:(?:`{0,2}|~{0,2})|(?:`{3,}|~{3,})[ \t]*[\w+#.:/-]{0,40}[ \t]*[\w-]{0,20})\Z", re.ASCII
)
_PROSE_INFO: Final = frozenset({"", "text", "txt", "plain", "plaintext", "markdown", "md", "none"})
_CODE_SIGN: Final = re.compile(r"[{}();=<>_/\\|$#`\[\]@&]")
_MIN_PROSE_WORDS: Final = 3
# More signs of code than one in so many characters are no prose.
_CHARS_PER_CODE_SIGN: Final = 20

# In front of a digit a dollar is money, except where what follows the number can only be a formula.
_MONEY: Final = re.compile(r"\$\d[\d.,]*[A-Za-z]{0,2}")
# As pandoc has it: no blank in front of the closing one, no digit behind it.
_CLOSING_DOLLAR: Final = re.compile(r"(?<![\s\\])\$(?!\d)")
_NO_MONEY: Final = frozenset("\\^_$+*=<>(×{")
_FORMULA: Final = re.compile(
    r"(?:(?<![^\W\d_])(?:[^\W\d_]{1,2}|sin|cos|tan|log|exp|lim|max|min)(?![^\W\d_])|[\d\s.,()\[\]+\-*/=<>×÷′'|!%°±≤≥≠≈∞])++"
)
_CJK_FORMULA: Final = frozenset("=×÷^_")
_CJK_SENTENCE: Final = frozenset("，。！？；")
_MAX_INLINE_CHARS: Final = 300
_MAX_DISPLAY_CHARS: Final = 2000
_MAX_ARGUMENT_CHARS: Final = 500
_MAX_TAG_CHARS: Final = 4000
_COMMAND: Final = re.compile(r"\\([A-Za-z]{1,20})\*?(?:\[[^\[\]\n]{0,8}\])?")

_PLAIN: Final = re.compile(r"[^\n`~<&$\\]+")
_PATH: Final = re.compile(r"[^\s\u3000-\u9fff\uff00-\uffef]*")

_Step: TypeAlias = tuple[int, str] | None
"""Where to go on, and what is shown of that which was passed; None: more has to come first."""


class _Mode(Enum):
    TEXT = auto()
    CODE = auto()  # inside a fenced block
    TAG = auto()  # inside a tag that has attributes
    COMMENT = auto()


class Markup:
    """Takes a reply in pieces and gives its plain text; where the pieces were cut makes no difference.

    A fence stands at the beginning of a line (CommonMark 0.31, section 4.5). A block that is code is taken out; one
    that holds prose, and one that is never closed, stays: the rest of a reply is never lost in it.
    """

    def __init__(self) -> None:
        self.code: list[str] = []
        """The blocks of code that were taken out."""
        self._mode = _Mode.TEXT
        self._rest = ""  # not judged yet
        self._before = ""  # the newest characters that have been
        self._line_start = True
        self._ticks = 0  # of the inline code that is open
        self._in_path = False
        self._fence = self._info = ""
        self._held: list[str] = []  # of a block, a tag or a comment that may never be closed
        self._held_chars = 0
        self._line: list[str] = []  # the newest line of a block
        self._quote = ""  # of an attribute's value
        self._value_follows = False

    def push(self, text: str) -> str:
        """Take the next piece and return what is plain by now."""
        self._rest += text
        return self._read(final=False)

    def flush(self) -> str:
        """End the reply and return what was held back."""
        shown = self._read(final=True)
        if self._mode is _Mode.CODE:
            info = self._info if self._fence[0] == "~" and self._info else ""
            shown += f"{info}\n{''.join(self._held + self._line)}"
        elif self._mode is not _Mode.TEXT:
            shown += "".join(self._held).partition("-->" if self._mode is _Mode.COMMENT else ">")[2]
        self._mode, self._held, self._line = _Mode.TEXT, [], []
        return shown

    def _read(self, *, final: bool) -> str:
        steps = {
            _Mode.TEXT: self._text,
            _Mode.CODE: self._in_code,
            _Mode.TAG: self._in_tag,
            _Mode.COMMENT: self._in_comment,
        }
        shown: list[str] = []
        text, at = self._rest, 0
        while at < len(text) and (step := steps[self._mode](text, at, final)) is not None:
            end, plain = step
            shown.append(plain)
            self._before = (self._before + text[max(at, end - 8) : end])[-8:]
            at = end
        self._rest = text[at:]
        return "".join(shown)

    def _text(self, text: str, at: int, final: bool) -> _Step:
        char = text[at]
        if self._line_start and char in " `~":
            if (fence := _FENCE.match(text, at)) and (final or fence[0][-1] == "\n"):
                self._mode, self._fence, self._info = _Mode.CODE, fence["ticks"] or fence["tildes"], fence["info"]
                return fence.end(), ""
            if not final and (fence or _FENCE_BEGUN.match(text, at)):
                return None
        self._line_start = char == "\n"
        if char == "\n":
            self._ticks, self._in_path = 0, False
            return at + 1, char
        if self._in_path:
            path = _PATH.match(text, at)
            assert path is not None
            self._in_path = path.end() == len(text)
            return path.end(), path[0]
        if plain := _PLAIN.match(text, at):
            return plain.end(), plain[0]
        if char == "`":
            return self._inline_code(text, at, final)
        if self._ticks or char == "~":
            return at + 1, char
        if char == "<":
            return self._tag(text, at, final)
        if char == "&":
            return self._entity(text, at, final)
        return self._dollar(text, at, final) if char == "$" else self._backslash(text, at, final)

    # Code ---------------------------------------------------------------------------------------------------------

    def _inline_code(self, text: str, at: int, final: bool) -> _Step:
        """Marks of code inside a line: what stands between two of the same length holds no markup."""
        end = _run(text, at, "`")
        if end == len(text) and not final:
            return None
        if not self._ticks:
            self._ticks = end - at
        elif self._ticks == end - at:
            self._ticks = 0
        return end, text[at:end]

    def _in_code(self, text: str, at: int, final: bool) -> _Step:
        if self._line_start:
            begin = _run(text, at, " \t")
            end = _run(text, begin, self._fence[0])
            after = _run(text, end, " \t")
            if after == len(text) and not final:
                return None
            following = text[after : after + 1]
            opens_another = after == end and following.isascii() and following.isalnum()
            if end - begin >= len(self._fence) and not opens_another:
                return after + (following == "\n"), self._block_ended(following)
        end = text.find("\n", at) + 1 or len(text)
        self._line.append(text[at:end])
        self._line_start = text[end - 1] == "\n"
        if self._line_start:
            line = "".join(self._line)
            self._line.clear()
            self._held.append(line)
            if line.rstrip().endswith(self._fence):  # print(1)```
                self._held[-1] = line.rstrip()[: -len(self._fence)]
                return end, self._block_ended("\n")
        return end, ""

    def _block_ended(self, following: str) -> str:
        block = "".join(self._held).strip("\n")
        self._mode, self._line_start = _Mode.TEXT, following == "\n"
        self._held.clear()
        if self._info.lower() in _PROSE_INFO and _is_prose(block):
            return f"\n{block}\n"
        self.code.append(block)
        return "\n"

    # Tags and entities --------------------------------------------------------------------------------------------

    def _tag(self, text: str, at: int, final: bool) -> _Step:
        if text.startswith("<!--", at):
            self._mode = _Mode.COMMENT
            return at + 4, ""
        if token := _TOKEN.match(text, at):
            return token.end(), ""
        if not final and _TOKEN_BEGUN.match(text, at):
            return None
        tag = _TAG.match(text, at)
        if tag is None:
            return at + 1, "<"
        if tag[2]:
            return self._bare_tag(tag, text, final)
        attribute = _ATTRIBUTE.match(text, tag.end())
        if attribute and (attribute[0][-1] == "=" or attribute[1] in _FLAGS):
            self._mode = _Mode.TAG
            self._held.append(text[at : attribute.end()])
            self._held_chars = 0
            self._value_follows = attribute[0][-1] == "="
            return attribute.end(), ""
        if not final and _ATTRIBUTE_BEGUN.match(text, tag.end()):
            return None
        return at + 1, "<"

    def _bare_tag(self, tag: re.Match[str], text: str, final: bool) -> _Step:
        """A tag without attributes: a comparison (a<b>c), the tag as a word ("the <b> tag"), or one to be left out."""
        name, closing = tag[1], tag[0][1] == "/"
        if not _is_left_out(name):
            return tag.end(), tag[0]
        following = text[tag.end() : tag.end() + 1]
        after = text[tag.end() : tag.end() + 10].lstrip()
        if not final and (not after or any(word.startswith(after) and word != after for word in _MENTIONED)):
            return None
        compares = len(name) == 1 and not closing and following.isascii() and following.isalnum()
        apart = self._before[-1:] == " " and (not following or following in _APART)
        if (
            after.startswith(_MENTIONED)
            or (compares and _VARIABLE.search(self._before))
            or (apart and name in _FORMATTING and name not in _NEVER_APART)
        ):
            return tag.end(), tag[0]
        return tag.end(), _in_place_of(name, closing=closing)

    def _in_tag(self, text: str, at: int, final: bool) -> _Step:
        end = at
        while end < len(text):
            char = text[end]
            end += 1
            if self._quote:
                self._quote = "" if char == self._quote else self._quote
            elif char in "<>":
                break
            elif char in "\"'" and self._value_follows:
                self._quote = char
            self._value_follows = char == "=" or (self._value_follows and char.isspace())
        piece, char = text[at:end], text[end - 1]
        self._held_chars += len(piece)
        if self._held_chars <= _MAX_TAG_CHARS:
            self._held.append(piece)
        if self._quote or char not in "<>":
            return end, ""
        raw = "".join(self._held)
        name = _TAG.match(raw)
        assert name is not None
        self._mode = _Mode.TEXT
        self._held.clear()
        embeds = any(f"{attribute}=" in raw for attribute in _EMBEDDING)
        if char == "<":  # not closed, and the next begins
            return end - 1, ""
        if embeds or name[1].lower() in _ELEMENTS or _is_left_out(name[1].lower()) or not raw.endswith(">"):
            return end, _in_place_of(name[1], closing=False)
        return end, raw

    def _in_comment(self, text: str, at: int, final: bool) -> _Step:
        end = text.find("-->", at)
        if end < 0:
            if not final:
                return None
            self._held.append(f"-->{text[at:]}")  # never closed: no comment
            return len(text), ""
        self._mode = _Mode.TEXT
        return end + 3, ""

    def _entity(self, text: str, at: int, final: bool) -> _Step:
        entity = _ENTITY.match(text, at)
        if entity and (not entity[1] or f"{entity[1]};" in html5):
            return entity.end(), unescape(entity[0])
        return None if not final and _ENTITY_BEGUN.match(text, at) else (at + 1, "&")

    # Formulas -----------------------------------------------------------------------------------------------------

    def _dollar(self, text: str, at: int, final: bool) -> _Step:
        following = text[at + 1 : at + 2]
        if not following:
            return (at + 1, "$") if final else None
        if following == "$":
            return self._between(text, at, "$$", final)
        if following.isdecimal():
            money = _MONEY.match(text, at)
            assert money is not None
            if money.end() == len(text) and not final:
                return None
            if text[money.end() : money.end() + 1] not in _NO_MONEY:
                return at + 1, "$"
        elif following.isspace():
            return at + 1, "$"
        limit = at + _MAX_INLINE_CHARS
        line_end = text.find("\n", at, limit)
        closing = _CLOSING_DOLLAR.search(text, at + 1, limit if line_end < 0 else line_end)
        waits = closing.end() == len(text) if closing else line_end < 0 and len(text) < limit
        if waits and not final:
            return None
        if closing is None or not _is_formula(body := text[at + 1 : closing.start()]):
            return at + 1, "$"
        return closing.end(), one_line(body)

    def _between(self, text: str, at: int, closer: str, final: bool) -> _Step:
        """A formula between two signs; without the second, the first is an ordinary character."""
        end = text.find(closer, at + 2, at + _MAX_DISPLAY_CHARS)
        if end < 0:
            waits = not final and len(text) - at < _MAX_DISPLAY_CHARS
            return None if waits else (at + 2, "$$" if closer == "$$" else text[at + 1])
        body = text[at + 2 : end]
        if closer in {"\\]", "\\)"} and not _is_formula(body):  # escaped brackets
            return end + 2, f"{text[at + 1]}{body}{closer[1]}"
        return end + 2, one_line(body)

    def _backslash(self, text: str, at: int, final: bool) -> _Step:
        following = text[at + 1 : at + 2]
        if not following:
            return (at + 1, "\\") if final else None
        if self._before.endswith(":"):  # C:\temp
            self._in_path = True
            return at + 1, "\\"
        if following in "([":
            return self._between(text, at, {"(": "\\)", "[": "\\]"}[following], final)
        command = _COMMAND.match(text, at)
        if following == "\\":  # written for a string: \\\\frac
            doubled = _COMMAND.match(text, at + 1)
            if not final and (at + 2 == len(text) or (doubled and doubled.end() == len(text))):
                return None
            if doubled and arguments_of(doubled[1]) is not None:
                return at + 1, ""
        if command is None:
            return (at + 1, "\\") if following == "\n" or following.isalnum() else (at + 2, text[at : at + 2])
        if command.end() == len(text) and not final:
            return None
        arguments = arguments_of(command[1])
        if arguments is None:
            return at + 1, "\\"
        if command[1] == "begin":
            return self._environment(text, at, final)
        end = command.end() if command[1] == "sqrt" else at + 1 + len(command[1])
        wanted = arguments
        while arguments and end - at < _MAX_ARGUMENT_CHARS:
            if end == len(text) and not final:
                return None
            group_end = _group_end(text, end)
            if group_end == 0 and not final and len(text) - at < _MAX_ARGUMENT_CHARS:
                return None
            if group_end < 0:
                break
            end, arguments = group_end or min(len(text), at + _MAX_ARGUMENT_CHARS), arguments - 1
        if arguments and arguments == wanted:
            return at + 1, "\\"  # the command as a word
        while text[end : end + 1] in ("_", "^") and end - at < _MAX_ARGUMENT_CHARS:  # bounds of a sum, an index
            group_end = _group_end(text, end + 1)
            if not final and (end + 1 == len(text) or (group_end == 0 and len(text) - at < _MAX_ARGUMENT_CHARS)):
                return None
            if group_end < 0 and text[end + 1 : end + 2] == "\\":
                break
            end = min(len(text), end + 2) if group_end <= 0 else group_end
        if end == len(text) and not final:
            return None
        return end, one_line(text[at:end])

    def _environment(self, text: str, at: int, final: bool) -> _Step:
        """A matrix, a system of equations."""
        end = _group_end(text, text.find("{", text.find("\\end{", at, at + _MAX_DISPLAY_CHARS)))
        if "\\end{" not in text[at : at + _MAX_DISPLAY_CHARS] or end <= 0:
            return None if not final and len(text) - at < _MAX_DISPLAY_CHARS else (at + 1, "\\")
        return end, one_line(text[at:end])


def _run(text: str, at: int, chars: str) -> int:
    """Behind the characters at `at` that are among `chars`."""
    while at < len(text) and text[at] in chars:
        at += 1
    return at


def _group_end(text: str, at: int) -> int:
    """Behind the group in braces at `at`; 0 where it is not closed, -1 where there is none."""
    if text[at : at + 1] != "{":
        return -1
    depth = 0
    for index in range(at, min(len(text), at + _MAX_ARGUMENT_CHARS)):
        depth += (text[index] == "{") - (text[index] == "}")
        if not depth:
            return index + 1
    return 0


def _is_left_out(name: str) -> bool:
    plain = name.rpartition(":")[2]
    return (name.islower() and (plain in _FORMATTING or plain in _SPEECH)) or name in _LOUD


def _in_place_of(name: str, *, closing: bool) -> str:
    """What a tag becomes that is left out."""
    name = name.lower()
    if name in _BREAKING:
        return "\n"
    if name == "sup":
        return "" if closing else "^"
    return "" if closing or name == "sub" else " "


def _is_formula(text: str) -> bool:
    """Whether what stands between two signs is one; two prices with a sentence between them are none."""
    if "\\" in text or not text.strip():
        return "\\" in text
    if any(map(is_cjk, text)):  # 面积=长×宽
        return not _CJK_FORMULA.isdisjoint(text) and _CJK_SENTENCE.isdisjoint(text)
    return "^" in text or "_" in text or _FORMULA.fullmatch(text) is not None


def _is_prose(block: str) -> bool:
    """Whether a fenced block holds a text for people: a poem, a letter, a line between two rows of tildes."""
    signs = len(_CODE_SIGN.findall(block))
    words = sum(map(is_cjk, block)) or len(block.split())
    return words >= _MIN_PROSE_WORDS and signs * _CHARS_PER_CODE_SIGN <= len(block)
