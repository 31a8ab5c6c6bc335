"""Tool calls that a model has written as text without any mark around them: only their shape tells. Pure."""

import re
from collections.abc import Collection
from typing import Final

from xiaozhi.text.written_calls import FIRST_KEYS, WrittenCall, calls_in_block, calls_in_json, python_calls

_OBJECT: Final = re.compile(r"(?:functools\s*)?(?:\[\s*)?\{\s*[\"'](\w{1,20})[\"']")
_OBJECT_BEGUN: Final = re.compile(r"(?:functools\s*)?(?=[\[{])(?:\[\s*)?(?:\{\s*(?:[\"']\w{0,20})?)?\Z")
_FENCE: Final = re.compile(r"```[ \t]*(json|xml|python|tool_\w{1,8}|function_call|)[ \t]*\n\s*(?=\S)")
_FENCE_BEGUN: Final = re.compile(r"`{1,2}\Z|```[ \t]*[a-z_]{0,14}[ \t]*(?:\n\s*)?\Z")
_STRUCTURE: Final = re.compile(r"\\.?|[\"'{}()\[\]]", re.DOTALL)
_LEADS: Final = ("", "[", "functions.", "[functions.", "default_api.", "print(")
_NAMED: Final = re.compile(
    r"(?:print\()?\[?(?:functions\.|default_api\.)?([A-Za-z_][\w.-]{0,80})(?:\(|\s*\{)", re.ASCII
)
_MAX_CHARS: Final = 65_536


class BareCalls:
    """Looks for calls at the beginning of a line or of an object.

    An object or a list has to have the keys of a call and no others; `name(...)` and `name {...}` have to name one of
    the tools. A fenced block is a call where what stands in it is one.

    Args:
        tools: names of those that are offered.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = frozenset(tools)
        self._forget()

    def _forget(self) -> None:
        self._scanned = 0  # of the text at the place that is looked at
        self._open = 0
        self._quote = ""

    def at(self, text: str, at: int, *, line_start: bool, final: bool) -> tuple[int, list[WrittenCall]] | None:
        """Look at one place: at the beginning of a line for all of them, elsewhere for what stands in brackets.

        Returns:
            Where the text goes on behind the calls, and the calls, which are none where it goes on at `at`; None while
            more has to come first.
        """
        if not line_start and text[at] == "`":
            return at, []
        found = self._look(text, at, final=final) if len(text) - at < _MAX_CHARS else (at, [])
        if found is not None:
            self._forget()
        return found

    def _look(self, text: str, at: int, *, final: bool) -> tuple[int, list[WrittenCall]] | None:
        char = text[at]
        if char == "`":
            return self._fenced(text, at, final=final)
        if (match := _OBJECT.match(text, at)) and match[1] in FIRST_KEYS:
            end = self._closed(text, at, quotes='"')
            if end:
                calls = calls_in_json(text[at:end].removeprefix("functools"))
                return (end if calls else at), calls
        elif (named := _NAMED.match(text, at)) and named[1] in self._tools:
            end = self._closed(text, at, quotes="\"'")
            if end:
                calls = calls_in_block(text[at:end], self._tools)[0]
                return (end if calls else at), calls
        elif match or not (_OBJECT_BEGUN.match(text, at) or self._name_begun(text, at)):
            return at, []
        return (at, []) if final else None

    def _name_begun(self, text: str, at: int) -> bool:
        begun = text[at : at + 100]
        word = begun.rstrip()
        return any(
            f"{lead}{name}".startswith(begun) or word == f"{lead}{name}"
            for lead in _LEADS
            for name in (*self._tools, *(("functools[",) if not lead else ()))
        )

    def _fenced(self, text: str, at: int, *, final: bool) -> tuple[int, list[WrittenCall]] | None:
        fence = _FENCE.match(text, at)
        if fence is None:
            return None if not final and _FENCE_BEGUN.match(text, at) else (at, [])
        if text[fence.end()] not in "{[<" and not fence[1].startswith("tool_") and not self._tools:
            return at, []
        end = text.find("```", max(fence.end(), at + self._scanned))
        if end < 0:
            self._scanned = max(0, len(text) - at - 2)
            return (at, []) if final else None
        block = text[fence.end() : end]
        marked = fence[1].startswith(("tool_", "function_"))
        calls = (
            calls_in_block(block, self._tools)[0]
            if marked
            else calls_in_json(block) or python_calls(block, self._tools)
        )
        return (end + 3 if calls or marked else at), calls

    def _closed(self, text: str, at: int, *, quotes: str) -> int:
        """Behind the bracket that closes the first one at `at`; 0 while there is none."""
        for match in _STRUCTURE.finditer(text, at + self._scanned):
            sign = match[0]
            if sign == "\\":  # and more may follow
                self._scanned = match.start() - at
                return 0
            if self._quote:
                self._quote = "" if sign == self._quote else self._quote
            elif sign in quotes:
                self._quote = sign
            elif sign in "{[(":
                self._open += 1
            elif sign in "}])":
                self._open -= 1
                if self._open <= 0:
                    return match.end()
        self._scanned = len(text) - at
        return 0
