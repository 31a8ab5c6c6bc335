"""JSON objects as language models write them: anything that a human reads in one way only. Pure, without evaluation.

Beside JSON: commas at the end, single and curly quotes, names without quotes, the words of Python and JavaScript,
comments, line feeds inside texts, full-width marks, a fence or a sentence around it, brackets that are not closed, the
object encoded as a text (again and again), and the same object several times.
"""

import json
import math
import re
import sys
from typing import Any, Final, NoReturn

import orjson

from xiaozhi.text.surrogates import without_halves

MAX_CHARS: Final = 16_384
"""Longer ones are not read: no tool needs more, and reading takes time on the loop."""
MAX_LOOSE_CHARS: Final = 4096
"""The same for what is no JSON: this much takes up to 3 ms."""
MAX_DEPTH: Final = 16
_MAX_ENCODINGS: Final = 3
_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|“(?:[^”\\]|\\.)*”|‘(?:[^’\\]|\\.)*’)
    |(?P<cut>(?:["'“‘]|/\*).*)
    |(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<mark>[{}\[\]:,=｛｝［］：，])
    |(?P<word>[^\s{}\[\]:,="'“”‘’｛｝［］：，]+)""",
    re.DOTALL | re.VERBOSE,
)
_MARKS: Final = str.maketrans("｛｝［］：，=", "{}[]:,:")
_WORDS: Final = {"true": True, "false": False, "null": None, "none": None, "undefined": None, "nil": None}
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


_CUT_OFF: Final = "are not valid JSON: they are cut off"


class NotReadable(Exception):
    """No object, or several that differ; one phrase saying so, to follow "the arguments"."""


def read_object(text: str) -> dict[str, Any]:
    """The object that was meant; an empty one for nothing, `null` and an empty text.

    Raises:
        NotReadable: there is none, it is too long or nested too deeply, or there are several.
    """
    for _ in range(_MAX_ENCODINGS + 1):
        if len(text) > MAX_CHARS:
            raise NotReadable(f"are longer than {MAX_CHARS} characters")
        value = _plain(_read(text))
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if value is None or value == []:
            return {}
        if isinstance(value, dict):
            return value
        if not isinstance(value, str):
            raise NotReadable("must be one JSON object")
        text = value
    raise NotReadable("are encoded too often")


def _read(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text, strict=False, parse_constant=_not_finite, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError):
        return _Loose(text).value()


def _not_finite(word: str) -> NoReturn:
    raise NotReadable(f"hold {word}, which is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _not_finite("a number without end")


def _whole(digits: str) -> int | float:
    number = int(digits)
    return number if abs(number) < 1 << 63 else _finite(digits)  # what JSON writers take as a whole number


def _plain(value: Any, depth: int = 0) -> Any:
    """The value as every JSON writer takes it: no halves of characters, and not nested too deeply."""
    if depth > MAX_DEPTH:
        raise NotReadable("are nested too deeply")
    if isinstance(value, str):
        return without_halves(value)
    if isinstance(value, dict):
        return {without_halves(name): _plain(each, depth + 1) for name, each in value.items()}
    return [_plain(each, depth + 1) for each in value] if isinstance(value, list) else value


class _Loose:
    """Reads one text with patience; linear in its length."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LOOSE_CHARS:
            raise NotReadable("are not valid JSON")
        if "{" not in text and "｛" not in text:
            raise NotReadable("are not valid JSON")
        if "{\\" in text and '{"' not in text:  # encoded as a text, without the quotes around it
            text = text.replace('\\"', '"')
        start = min(at for at in (text.find("{"), text.find("｛")) if at >= 0)
        if "[" in text[:start] and not text[:start].rpartition("[")[2].strip():
            start = text.rindex("[", 0, start)
        self._tokens = [
            (kind, match[0].translate(_MARKS) if kind == "mark" else match[0])
            for match in _TOKEN.finditer(text, start)
            if (kind := match.lastgroup or "") != "blank"
        ]
        self._at = 0

    def value(self) -> Any:
        """Every object of the text; they must be the same."""
        found: list[Any] = []
        while self._at < len(self._tokens):
            if self._tokens[self._at][1] in "{[" and self._tokens[self._at][0] == "mark":
                value = self._value(0)
                if value and value not in found:
                    found.append(value)
            else:
                self._at += 1  # a fence, a closing tag, a word behind it
        if len(found) > 1:
            raise NotReadable("are several objects that differ")
        return found[0] if found else None

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise NotReadable("are nested too deeply")
        kind, token = self._next()
        if (kind, token) == ("mark", "{"):
            return self._object(depth)
        if (kind, token) == ("mark", "["):
            return self._list(depth)
        match kind:
            case "text":
                return _unquoted(token)
            case "number":
                return _number(token)
            case "word":
                return _WORDS.get(token.lower(), token)
            case _:
                raise NotReadable(_CUT_OFF if kind == "cut" else "are not valid JSON")

    def _object(self, depth: int) -> dict[str, Any]:
        read: dict[str, Any] = {}
        while not self._ends("}"):
            kind, token = self._next()
            if kind in ("mark", "cut") or self._next() != ("mark", ":"):
                raise NotReadable(_CUT_OFF if kind == "cut" else "are not valid JSON")
            read[_unquoted(token) if kind == "text" else token] = self._value(depth + 1)
        return read

    def _list(self, depth: int) -> list[Any]:
        read: list[Any] = []
        while not self._ends("]"):
            read.append(self._value(depth + 1))
        return read

    def _ends(self, closer: str) -> bool:
        """Whether the brackets close here; takes the comma in front of whatever follows."""
        before = self._tokens[self._at - 1]
        comma = False
        while self._at < len(self._tokens) and self._tokens[self._at] == ("mark", ","):
            self._at += 1
            comma = True
        if self._at == len(self._tokens):
            # Where it was cut off a number may go on, and what was to come is not known.
            if comma or before[0] in ("number", "word") or before[1] in ("{", "["):
                raise NotReadable(_CUT_OFF)
            return True
        if self._tokens[self._at] == ("mark", closer):
            self._at += 1
            return True
        if not comma and before not in (("mark", "{"), ("mark", "[")):
            raise NotReadable("are not valid JSON")
        return False

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise NotReadable(_CUT_OFF)
        self._at += 1
        return self._tokens[self._at - 1]


def _unquoted(token: str) -> str:
    def meant(match: re.Match[str]) -> str:
        if match[4]:
            return _ESCAPES.get(match[4], match[4])
        code = int(match[1] or match[2] or match[3], 16)
        return chr(code) if code <= sys.maxunicode else ""

    return _ESCAPE.sub(meant, token[1:-1])


def _number(token: str) -> int | float:
    try:
        return _whole(token)
    except ValueError:
        return _finite(token)


def wire_object(text: str) -> str:
    """`text` as JSON that any server reads: as it is where it is an object, mended where it can be, else `{}`."""
    try:
        if isinstance(orjson.loads(text), dict):
            return text
    except orjson.JSONDecodeError:
        pass
    try:
        return json.dumps(read_object(text))
    except NotReadable:
        return "{}"
